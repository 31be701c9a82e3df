package datapath

// Stage is one part of the program, for one package: see [Config].
type Stage uint8

// The stages, in the order in which a kernel is asked to take them.
const (
	// RelayStage forwards for package relay.
	RelayStage Stage = iota
	// QuotaStage drops for package quota.
	QuotaStage
	// MonitorStage counts for package monitor.
	MonitorStage

	numStages
)

// String returns the stage in one word.
func (s Stage) String() string {
	return [...]string{"relay", "quota", "monitor"}[min(s, MonitorStage)]
}

// The oldest Linux that the program is tested on, and the oldest for a process without
// CAP_PERFMON: the verifiers before it follow branches that cannot be taken, as
// speculation might, and refuse what they find there.
const (
	oldestKernel    = "6.1"
	oldestNoPerfmon = "6.18"
)
