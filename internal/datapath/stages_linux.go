package datapath

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// chooseStages returns the configuration with those of its stages that this kernel
// takes, and keeps why it refuses the others. The first stages are asked for first:
// a stage that is refused costs no other stage.
func (p *Program) chooseStages(conf *Config, refusal error) (*Config, error) {
	small := *conf
	small.Sessions, small.IDs, small.Prefixes, small.Sources, small.Attempts = 1, 1, 1, 1, attemptSlots
	small.Flows, small.Pin = 1, ""
	var taken []Stage
	for _, stage := range conf.Stages {
		next := append(slices.Clip(taken), stage)
		err := p.try(small.only(next))
		switch {
		case err == nil:
			taken = next
		case !isRefusal(err):
			return nil, err
		default:
			p.refused[stage] = refusedError(stage, taken, err)
		}
	}
	if len(taken) == 0 {
		return nil, errors.Join(p.refused[:]...)
	}
	for _, err := range p.refused {
		if err != nil {
			p.log.Warn("this kernel does not take a stage of the program; what it does is left to Go", "err", err)
		}
	}
	if len(taken) == len(conf.Stages) {
		return nil, refusal // not for a stage
	}
	return conf.only(taken), nil
}

// try loads a program, and unloads it. The verifier's log is in the error, unless the
// program is too large: then the log would be as well, and take seconds.
func (p *Program) try(conf *Config) error {
	trial := &Program{log: p.log}
	err := trial.loadStages(conf)
	if isRefusal(err) && !errors.Is(err, unix.E2BIG) {
		trial.verbose = true
		err = trial.loadStages(conf)
	}
	if err != nil {
		return err
	}
	return trial.Close()
}

// isRefusal says whether an error may be the kernel verifier's.
func isRefusal(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.E2BIG)
}

// refusedError says which stage was refused, beside which others, by which kernel,
// and what would help.
func refusedError(stage Stage, beside []Stage, err error) error {
	what := fmt.Sprintf("the %s stage", stage)
	if len(beside) > 0 {
		what += fmt.Sprintf(" beside %v", beside)
	}
	help := fmt.Sprintf("it needs Linux %s", oldestKernel)
	if !hasPerfmon() {
		help = fmt.Sprintf("it needs CAP_PERFMON, or Linux %s without other stages", oldestNoPerfmon)
	}
	return fmt.Errorf("%w: Linux %s refuses %s (%s): %w", ErrUnsupported, kernelRelease(), what, help, err)
}

// kernelRelease is what uname -r prints.
func kernelRelease() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "of an unknown version"
	}
	return unix.ByteSliceToString(name.Release[:])
}

// hasPerfmon says whether the process has CAP_PERFMON, or CAP_SYS_ADMIN, which
// includes it: then the kernel's verifier leaves out its guards against speculation.
func hasPerfmon() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return true // the verifier will say
	}
	effective := uint64(data[1].Effective)<<32 | uint64(data[0].Effective)
	return effective&(1<<unix.CAP_PERFMON|1<<unix.CAP_SYS_ADMIN) != 0
}

// StageErr returns nil if the program has a stage, ErrConfig if it was not asked
// for, and ErrUnsupported, with the kernel and what it lacks, if this kernel has
// refused it. Load fails only if all stages are refused.
func (p *Program) StageErr(stage Stage) error {
	switch {
	case stage >= numStages:
		return fmt.Errorf("xdp: %w: there is no stage %d", ErrConfig, stage)
	case p.refused[stage] != nil:
		return fmt.Errorf("xdp: %w", p.refused[stage])
	case !slices.Contains(p.stages, stage):
		return fmt.Errorf("xdp: %w: the program was loaded without the %s stage: see Config", ErrConfig, stage)
	}
	return nil
}
