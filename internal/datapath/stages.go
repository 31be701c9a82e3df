package datapath

// Stage is a part of the program that works for one package. xdp.Stage documents the stages.
type Stage uint8

// The stages. If the kernel refuses the program, they are tried in this order.
const (
	RelayStage Stage = iota
	QuotaStage
	MonitorStage

	numStages
)

// String returns the stage in one word.
func (s Stage) String() string {
	return [...]string{"relay", "quota", "monitor"}[min(s, MonitorStage)]
}

// The oldest Linux that the program is tested on, and the oldest for a process without
// CAP_PERFMON. Earlier verifiers follow branches that only speculative execution takes, and
// refuse the program for what they find there.
const (
	oldestKernel    = "6.1"
	oldestNoPerfmon = "6.18"
)
