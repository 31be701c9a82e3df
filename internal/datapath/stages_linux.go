package datapath

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// chooseStages returns the configuration with those of its stages that this kernel accepts,
// and stores why it refuses the others. It adds one stage after the other to those that the
// kernel has accepted, so that a refused stage does not affect earlier ones. refusal is the
// error for all stages together.
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
			p.log.Warn("this kernel refuses a stage of the program; Go does its work instead", "err", err)
		}
	}
	if len(taken) == len(conf.Stages) {
		return nil, refusal // the kernel accepts small maps, so the cause is another one
	}
	return conf.only(taken), nil
}

// try loads a program and unloads it. The error contains the verifier's log, except if the
// program is too large: its log would be large as well, and take seconds.
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

// isRefusal says whether an error may come from the kernel's verifier.
func isRefusal(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.E2BIG)
}

// refusedError returns an error with the refused stage, the stages that were loaded with it,
// the kernel, and what the stage needs.
func refusedError(stage Stage, beside []Stage, err error) error {
	what := fmt.Sprintf("the %s stage", stage)
	if len(beside) > 0 {
		what += fmt.Sprintf(" beside %v", beside)
	}
	help := fmt.Sprintf("it needs Linux %s", oldestKernel)
	if !hasPerfmon() {
		help = fmt.Sprintf("it needs CAP_PERFMON, or Linux %s", oldestNoPerfmon)
	}
	return fmt.Errorf("%w: Linux %s refuses %s (%s): %w", ErrUnsupported, kernelRelease(), what, help, err)
}

// kernelRelease returns the kernel's release, as uname -r prints it.
func kernelRelease() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "of an unknown version"
	}
	return unix.ByteSliceToString(name.Release[:])
}

// hasPerfmon says whether the process has CAP_PERFMON, or CAP_SYS_ADMIN, which includes it.
// The kernel's verifier then omits its mitigations against speculative execution.
func hasPerfmon() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return true // unknown: the verifier will decide
	}
	effective := uint64(data[1].Effective)<<32 | uint64(data[0].Effective)
	return effective&(1<<unix.CAP_PERFMON|1<<unix.CAP_SYS_ADMIN) != 0
}

// StageErr returns nil if the program has the stage, and otherwise why not: xdp.Program
// documents it. Load fails only if the kernel refuses all stages.
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
