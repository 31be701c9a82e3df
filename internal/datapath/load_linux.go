package datapath

import (
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/hashspread"
)

// Load loads the program into the kernel, with the stages of the configuration, and attaches
// it to no interface. cfg may be nil. xdp.Load documents the errors. The caller closes the
// program.
func Load(cfg *Config) (*Program, error) {
	conf, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Program{
		log:       conf.Logger,
		attached:  make(map[int]*attachment),
		followers: make(map[*follower]struct{}),
		epoch:     rand.Uint32(), // so that next hops in pinned maps are invalid
	}
	if p.pin, err = openPin(conf.Pin); err != nil {
		return nil, fmt.Errorf("xdp: load: %w", err)
	}
	if err = p.load(conf); err == nil && p.pin != nil {
		p.relay.notes, err = p.pin.newNotes(max(p.relay.sessions, 1)) // a map has at least one entry
	}
	if err == nil {
		err = p.pin.removeFormer(p.log)
	}
	if err != nil {
		return nil, fmt.Errorf("xdp: load: %w", errors.Join(explain(err), p.release(), p.pin.abandon()))
	}
	return p, nil
}

// load loads the program with the stages of the configuration that the kernel accepts.
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

// loadStages loads the program with all stages of the configuration. If the process lacks
// CAP_PERFMON, and the kernel refuses the program, it loads the slower program that needs no
// CAP_PERFMON.
func (p *Program) loadStages(conf *Config) error {
	p.relay.program = p
	p.relay.sessions = 0
	if conf.has(RelayStage) {
		p.relay.sessions = uint32(conf.Sessions)
	}
	err := p.loadFor(conf, false)
	if isRefusal(err) && !hasPerfmon() {
		p.log.Info("the process lacks CAP_PERFMON, loading the slower program", "err", err)
		err = p.loadFor(conf, true)
	}
	return err
}

// loadFor loads the program for a process with or without CAP_PERFMON.
func (p *Program) loadFor(conf *Config, noPerfmon bool) error {
	p.noPerfmon = noPerfmon
	spec, err := loadDatapath()
	if err != nil {
		return err
	}
	if err := spec.Variables[datapathVarNoPerfmon].Set(noPerfmon); err != nil {
		return err
	}
	routes, err := p.pin.routeKeys()
	if err != nil {
		return err
	}
	if err := spec.Variables[datapathVarEpoch].Set(p.epoch); err != nil {
		return err
	}
	if err := errors.Join(specClock(spec.Variables[datapathVarTickNs]), specRelay(spec, conf, &routes), specQuota(spec, conf, &p.hashKeys)); err != nil {
		return err
	}
	hash := newPairHash(conf.Flows)
	if err := specMonitor(spec, conf, &hash); err != nil {
		return err
	}
	if err := p.pin.load(spec, &p.objects, p.programOptions(), p.log); err != nil {
		return err
	}
	if p.relay.legs, err = newLegTable(p.objects.Legs, p.objects.Commons, p.pin != nil); err == nil {
		p.relay.events, err = ringbuf.NewReader(p.objects.Events)
	}
	if err == nil {
		p.relay.routes, err = newRouteTable(routes, p.objects.RouteSets)
	}
	if err == nil {
		err = p.relay.readPorts()
	}
	if err == nil && conf.has(QuotaStage) {
		p.drops, err = ringbuf.NewReader(p.objects.Drops)
	}
	if err == nil && conf.has(MonitorStage) {
		p.known, err = newKnownFlows(hash, &p.objects.datapathMaps)
	}
	if err == nil && conf.has(MonitorStage) {
		p.egress, err = newEgress(&p.objects.datapathMaps, &hash, p.programOptions())
	}
	if err != nil {
		return errors.Join(err, p.release())
	}
	return nil
}

// release closes everything that loadFor has opened.
func (p *Program) release() error {
	errs := []error{p.egress.close(), p.known.close(), p.relay.legs.close(), p.relay.routes.close(), p.relay.notes.Close(), p.objects.Close()}
	for _, ring := range []*ringbuf.Reader{p.relay.events, p.drops} {
		if ring != nil {
			errs = append(errs, ring.Close())
		}
	}
	p.relay.events, p.drops, p.egress, p.known, p.relay.notes, p.objects = nil, nil, nil, nil, nil, datapathObjects{}
	return errors.Join(errs...)
}

func (p *Program) programOptions() ebpf.ProgramOptions {
	return ebpf.ProgramOptions{LogDisabled: !p.verbose}
}

// specClock sets the length of a tick in a program.
func specClock(v *ebpf.VariableSpec) error {
	length, err := tick()
	return errors.Join(err, v.Set(length))
}

// specRelay enables the relay stage, if the configuration has it, and sets the sizes of its
// maps, and the hash of its routes.
func specRelay(spec *ebpf.CollectionSpec, conf *Config, routes *routeHash) error {
	if !conf.has(RelayStage) {
		return nil
	}
	sets := routeSets(conf.IDs)
	routes.mask = sets - 1
	spec.Maps[datapathMapLegs].MaxEntries = 2 * uint32(conf.Sessions)
	spec.Maps[datapathMapRouteSets].MaxEntries = sets
	hints := uint32(1) << bits.Len(2*uint(conf.Sessions)-1) // at least one for each leg
	spec.Maps[datapathMapHints].MaxEntries = hints
	return errors.Join(
		spec.Variables[datapathVarRelayOn].Set(true),
		spec.Variables[datapathVarHintMask].Set(hints-1),
		spec.Variables[datapathVarReorders].Set(conf.reorders || !inOrder()),
		spec.Variables[datapathVarRouteKeys].Set(routes.keys),
		spec.Variables[datapathVarRouteMask].Set(routes.mask),
	)
}

// specQuota enables the quota stage, if the configuration has it, and sets the sizes of its
// maps. Without the stage they have one entry.
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
	// Twice as many entries as Attempts, because some sets are fuller than others.
	attemptSets := uint32(1) << bits.Len(2*uint(conf.Attempts-1)/uint(attemptSlots))
	spec.Maps[datapathMapAttempts].MaxEntries = attemptSets
	sets := deniedSets(conf.Prefixes)
	spec.Maps[datapathMapDeniedSources].MaxEntries = sets
	for i := range keys {
		keys[i] = hashspread.Key()
	}
	return errors.Join(
		spec.Variables[datapathVarQuotaOn].Set(true),
		spec.Variables[datapathVarDeniedMask].Set(sets-1),
		spec.Variables[datapathVarAttemptsMask].Set(attemptSets-1),
		spec.Variables[datapathVarHashKeys].Set(keys),
	)
}

// explain wraps an error of the kernel in one of the errors of this package.
func explain(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.Is(err, ErrUnsupported):
		return err
	case errors.As(err, &verifier):
		return fmt.Errorf("%w: this kernel's verifier refuses the program: %w", ErrUnsupported, err)
	case errors.Is(err, unix.EPERM):
		// The text of err mentions RLIMIT_MEMLOCK, which is not relevant since Linux 5.11.
		return fmt.Errorf("%w: %w", ErrPermission, unix.EPERM)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: %w", ErrPermission, err)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return err
}
