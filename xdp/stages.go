package xdp

// Stage is one part of the program, for one package: see [Config].
type Stage uint8

// The stages, in the order in which a kernel is asked to take them.
const (
	// RelayStage forwards for package relay: Config.Sessions.
	RelayStage Stage = iota
	// QuotaStage drops for package quota: Config.Quota.
	QuotaStage
	// MonitorStage counts for package monitor: Config.Flows.
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
	oldestKernel        = "6.1"
	oldestGuardedKernel = "6.18"
)

// stages returns what the configuration asks for.
func (c *Config) stages() (stages []Stage) {
	for stage, wanted := range [numStages]bool{c.Sessions >= 0, c.Quota, c.Flows > 0} {
		if wanted {
			stages = append(stages, Stage(stage))
		}
	}
	return stages
}

// only returns a copy of the configuration that asks for these stages alone.
func (c *Config) only(stages []Stage) *Config {
	var wanted [numStages]bool
	for _, s := range stages {
		wanted[s] = true
	}
	out := *c
	if !wanted[RelayStage] {
		out.Sessions, out.IDs = -1, 0
	}
	out.Quota = c.Quota && wanted[QuotaStage]
	if !wanted[MonitorStage] {
		out.Flows = 0
	}
	return &out
}
