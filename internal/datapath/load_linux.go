package datapath

import (
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Load brings the program and its maps into the kernel, with the stages that
// are asked for, and attaches it to nothing. cfg may be nil. Errors wrap
// ErrPermission, ErrUnsupported, ErrConfig, or ErrBusy if another process has what
// is pinned. The caller closes the program.
func Load(cfg *Config) (*Program, error) {
	conf, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Program{
		log:       conf.Logger,
		attached:  make(map[int]*attachment),
		followers: make(map[*follower]struct{}),
		epoch:     rand.Uint32(), // not that of a program before this one
	}
	if p.pin, err = openPin(conf.Pin); err != nil {
		return nil, fmt.Errorf("xdp: load: %w", err)
	}
	if err = p.load(conf); err == nil && p.pin != nil {
		p.relay.notes, err = p.pin.newNotes(max(p.relay.sessions, 1)) // a map of none is none
	}
	if err != nil {
		return nil, fmt.Errorf("xdp: load: %w", errors.Join(explain(err), p.release(), p.pin.abandon()))
	}
	return p, nil
}

// load loads the program with as many of the stages that are asked for as the kernel
// takes.
func (p *Program) load(conf *Config) error {
	err := p.loadStages(conf)
	if isRefusal(err) {
		if conf, err = p.chooseStages(conf, err); err == nil {
			err = p.loadStages(conf)
		}
	}
	if err == nil {
		p.stages = conf.Stages
	}
	return err
}

// loadStages loads the program as fast as this process may have it.
func (p *Program) loadStages(conf *Config) error {
	p.relay.program = p
	p.relay.sessions = 0
	if conf.has(RelayStage) {
		p.relay.sessions = uint32(conf.Sessions)
	}
	err := p.loadFor(conf, false)
	if isRefusal(err) && !hasPerfmon() {
		p.log.Info("loading the program again, in the slower way that goes without CAP_PERFMON", "err", err)
		err = p.loadFor(conf, true)
	}
	return err
}

// loadFor loads the program for a process that has CAP_PERFMON, or that is guarded
// against.
func (p *Program) loadFor(conf *Config, noPerfmon bool) error {
	p.noPerfmon = noPerfmon
	spec, err := loadDatapath()
	if err != nil {
		return err
	}
	if err := spec.Variables[datapathVarNoPerfmon].Set(noPerfmon); err != nil {
		return err
	}
	if err := errors.Join(specClock(spec.Variables[datapathVarTickNs]), specRelay(spec, conf), specQuota(spec, conf, &p.hashKeys)); err != nil {
		return err
	}
	if err := specMonitor(spec, conf); err != nil {
		return err
	}
	if err := p.pin.load(spec, &p.objects, p.programOptions(), p.log); err != nil {
		return err
	}
	if p.relay.memory, err = p.objects.Sessions.Memory(); err == nil {
		p.relay.events, err = ringbuf.NewReader(p.objects.Events)
	}
	if err == nil {
		err = p.relay.readPorts()
	}
	if err == nil && conf.has(QuotaStage) {
		p.drops, err = ringbuf.NewReader(p.objects.Drops)
	}
	if err == nil && conf.has(MonitorStage) {
		p.egress, err = newEgress(&p.objects.datapathMaps, p.programOptions())
	}
	if err == nil && conf.has(MonitorStage) {
		p.ruleSetter, err = newRuleSetter(p.objects.Flows)
	}
	if err != nil {
		return errors.Join(err, p.release())
	}
	return nil
}

// release closes all that was loaded, of a program that will not be used.
func (p *Program) release() error {
	errs := []error{p.egress.close(), p.ruleSetter.Close(), p.relay.notes.Close(), p.objects.Close()}
	for _, ring := range []*ringbuf.Reader{p.relay.events, p.drops} {
		if ring != nil {
			errs = append(errs, ring.Close())
		}
	}
	p.relay.events, p.drops, p.egress, p.ruleSetter, p.relay.notes, p.objects = nil, nil, nil, nil, nil, datapathObjects{}
	return errors.Join(errs...)
}

func (p *Program) programOptions() ebpf.ProgramOptions {
	return ebpf.ProgramOptions{LogDisabled: !p.verbose}
}

// specClock tells a program how long a tick is.
func specClock(v *ebpf.VariableSpec) error {
	length, err := tick()
	return errors.Join(err, v.Set(length))
}

// specRelay puts the relay stage into the program, or leaves it out.
func specRelay(spec *ebpf.CollectionSpec, conf *Config) error {
	if !conf.has(RelayStage) {
		return nil
	}
	spec.Maps[datapathMapSessions].MaxEntries = uint32(conf.Sessions)
	spec.Maps[datapathMapRoutes].MaxEntries = uint32(conf.IDs)
	return spec.Variables[datapathVarRelayOn].Set(true)
}

// specQuota puts the quota stage into the program, or leaves it out. Its maps have
// one entry then.
func specQuota(spec *ebpf.CollectionSpec, conf *Config, keys *[hashKeys]uint64) error {
	if !conf.has(QuotaStage) {
		return nil
	}
	for name, entries := range map[string]int{
		datapathMapGuards:  65536 / guardedPorts,
		datapathMapAllowed: conf.Prefixes, datapathMapDenied: conf.Prefixes, datapathMapExceptions: conf.Prefixes,
		datapathMapRefused: conf.Sources,
	} {
		spec.Maps[name].MaxEntries = uint32(entries)
	}
	for name, wanted := range map[string]int{datapathMapBuckets: conf.Sources, datapathMapOrigins: conf.Attempts} {
		entries, err := lruEntries(wanted)
		if err != nil {
			return err
		}
		spec.Maps[name].MaxEntries = entries
	}
	// Twice as many as asked for, because some are fuller than others.
	places := uint32(1) << bits.Len(2*uint(conf.Attempts-1)/uint(attemptSlots))
	spec.Maps[datapathMapAttempts].MaxEntries = places
	sets := deniedSets(conf.Prefixes)
	spec.Maps[datapathMapDeniedSources].MaxEntries = sets
	for i := range keys {
		keys[i] = rand.Uint64()
	}
	return errors.Join(
		spec.Variables[datapathVarQuotaOn].Set(true),
		spec.Variables[datapathVarDeniedMask].Set(sets-1),
		spec.Variables[datapathVarAttemptsMask].Set(places-1),
		spec.Variables[datapathVarHashKeys].Set(keys),
	)
}

// explain says what to do about an error of the kernel.
func explain(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.Is(err, ErrUnsupported):
		return err
	case errors.As(err, &verifier):
		return fmt.Errorf("%w: this kernel's verifier refuses the program: %w", ErrUnsupported, err)
	case errors.Is(err, unix.EPERM):
		// The text of err blames a limit that Linux has not had since 5.11.
		return fmt.Errorf("%w: %w", ErrPermission, unix.EPERM)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: %w", ErrPermission, err)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return err
}
