package xdp

import (
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"math/rand/v2"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Program is the kernel's program with its maps. All methods may be called
// concurrently.
type Program struct {
	log      *slog.Logger
	sessions uint32
	pin      *pin
	objects  datapathObjects
	hashKeys [hashKeys]uint64
	guarded  bool
	verbose  bool             // the verifier's log is wanted if it refuses the program
	stages   []Stage          // that the program has
	refused  [numStages]error // why the kernel does not take a stage that was asked for
	memory   *ebpf.Memory     // of the map of sessions
	notes    *ebpf.Map        // nil: not pinned
	events   *ringbuf.Reader
	drops    *ringbuf.Reader // nil: no quota stage
	egress   *egress         // nil: no monitor stage
	lesson   *ebpf.Program   // nil: no monitor stage

	changing  sync.Mutex // held while ways change
	mu        sync.Mutex // guards the following
	closed    bool
	quota     *Quota              // nil: nobody has it
	attached  map[int]*attachment // by index
	followers map[*follower]struct{}
	epoch     uint32
	ports     [65536 / 64]uint64
	flows     *Flows // nil: nobody reads them
	round     uint32
}

// attachment is the program on an interface.
type attachment struct {
	index int
	name  string // when it was attached
	mode  Mode
	link  link.Link
	again bool // by its follower, not by the caller of Attach

	follower *follower  // nil: nobody follows
	asking   sync.Mutex // held while link is asked, or ended

	egress link.Link // nil: what leaves is not seen
}

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
		p.notes, err = p.pin.newNotes(max(p.sessions, 1)) // a map of none is none
	}
	if err != nil {
		return nil, fmt.Errorf("xdp: load: %w", errors.Join(explain(err), p.release(), p.pin.abandon()))
	}
	return p, nil
}

// load loads the program with as many of the stages that are asked for as the kernel
// takes.
func (p *Program) load(conf *Config) error {
	err := p.loadAny(conf)
	if isRefusal(err) {
		if conf, err = p.chooseStages(conf, err); err == nil {
			err = p.loadAny(conf)
		}
	}
	if err == nil {
		p.stages = conf.stages()
	}
	return err
}

// loadAny loads the program as fast as this process may have it.
func (p *Program) loadAny(conf *Config) error {
	p.sessions = uint32(max(conf.Sessions, 0))
	err := p.loadAs(conf, false)
	if isRefusal(err) && !mayPerfmon() {
		p.log.Info("loading the program again, in the slower way that goes without CAP_PERFMON", "err", err)
		err = p.loadAs(conf, true)
	}
	return err
}

// loadAs loads the program for a process that has CAP_PERFMON, or that is guarded
// against.
func (p *Program) loadAs(conf *Config, guarded bool) error {
	p.guarded = guarded
	spec, err := loadDatapath()
	if err != nil {
		return err
	}
	if err := spec.Variables[datapathVarGuarded].Set(guarded); err != nil {
		return err
	}
	if err := errors.Join(specClock(spec.Variables[datapathVarTickNs]), specRelay(spec, conf), specQuota(spec, conf, &p.hashKeys)); err != nil {
		return err
	}
	if err := monitorFlows(spec, conf.Flows); err != nil {
		return err
	}
	if err := p.pin.load(spec, &p.objects, p.programOptions(), p.log); err != nil {
		return err
	}
	if p.memory, err = p.objects.Sessions.Memory(); err == nil {
		p.events, err = ringbuf.NewReader(p.objects.Events)
	}
	if err == nil {
		err = p.readPorts()
	}
	if err == nil && conf.Quota {
		p.drops, err = ringbuf.NewReader(p.objects.Drops)
	}
	if err == nil && conf.Flows > 0 {
		p.egress, err = newEgress(&p.objects.datapathMaps, p.programOptions())
	}
	if err == nil && conf.Flows > 0 {
		p.lesson, err = newLesson(p.objects.Tracks)
	}
	if err != nil {
		return errors.Join(err, p.release())
	}
	return nil
}

// release closes all that was loaded, of a program that will not be used.
func (p *Program) release() error {
	errs := []error{p.egress.close(), p.lesson.Close(), p.notes.Close(), p.objects.Close()}
	for _, ring := range []*ringbuf.Reader{p.events, p.drops} {
		if ring != nil {
			errs = append(errs, ring.Close())
		}
	}
	p.events, p.drops, p.egress, p.lesson, p.notes, p.objects = nil, nil, nil, nil, nil, datapathObjects{}
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
	if conf.Sessions < 0 {
		return nil
	}
	spec.Maps[datapathMapSessions].MaxEntries = uint32(conf.Sessions)
	spec.Maps[datapathMapRoutes].MaxEntries = uint32(conf.IDs)
	return spec.Variables[datapathVarRelayOn].Set(true)
}

// specQuota puts the quota stage into the program, or leaves it out. Its maps have
// one entry then.
func specQuota(spec *ebpf.CollectionSpec, conf *Config, keys *[hashKeys]uint64) error {
	if !conf.Quota {
		return nil
	}
	for name, entries := range map[string]int{
		datapathMapGuards:  65536 / guardedPorts,
		datapathMapAllowed: conf.Prefixes, datapathMapDenied: conf.Prefixes, datapathMapExceptions: conf.Prefixes,
		datapathMapTurned: conf.Sources,
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
	places := uint32(1) << bits.Len(2*uint(conf.Attempts-1)/uint(attemptWays))
	spec.Maps[datapathMapAttempts].MaxEntries = places
	sets := hostSets(conf.Prefixes)
	spec.Maps[datapathMapHosts].MaxEntries = sets
	for i := range keys {
		keys[i] = rand.Uint64()
	}
	return errors.Join(
		spec.Variables[datapathVarQuotaOn].Set(true),
		spec.Variables[datapathVarHostsMask].Set(sets-1),
		spec.Variables[datapathVarAttemptsMask].Set(places-1),
		spec.Variables[datapathVarHashKeys].Set(keys),
	)
}

// readPorts learns which ports are open already.
func (p *Program) readPorts() error {
	for i := range p.ports {
		if err := p.objects.Ports.Lookup(uint32(i), &p.ports[i]); err != nil {
			return err
		}
	}
	return nil
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

// Close detaches the program from all interfaces and removes it from the kernel,
// with its maps, unless it is pinned. [Program.Events], [Quota.Drops] and
// [Flows.Read] end. It may be called more than once.
func (p *Program) Close() error {
	followers, err := p.close()
	for f := range followers {
		f.stop()
	}
	if err != nil {
		return fmt.Errorf("xdp: close: %w", err)
	}
	return nil
}

// close leaves the followers to the caller, who stops them without the lock.
func (p *Program) close() (followers map[*follower]struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil
	}
	p.closed = true
	followers, p.followers = p.followers, nil
	errs := []error{p.events.Close(), p.egress.close(), p.lesson.Close()}
	if p.drops != nil {
		errs = append(errs, p.drops.Close())
	}
	if p.flows != nil {
		errs = append(errs, p.flows.closeSamples())
	}
	for _, a := range p.attached {
		if p.pin == nil {
			errs = append(errs, p.detachLocked(a))
		} else {
			errs = append(errs, a.leave())
		}
	}
	if p.notes != nil {
		errs = append(errs, p.notes.Close())
	}
	errs = append(errs, p.objects.Close(), p.pin.close())
	return followers, errors.Join(errs...)
}

// FD returns the program's file descriptor, for a program of the user's own to
// call it (a tail call through a BPF_MAP_TYPE_PROG_ARRAY). It is valid until
// Close.
func (p *Program) FD() int { return p.objects.Quicway.FD() }

// SetNext makes packets that this program passes go to another XDP program, by
// its file descriptor, which may be closed afterwards. A negative one makes them
// go to the kernel again. That program must be of the same kind: loaded with the
// expected attach type BPF_XDP, and without multi-buffer support.
func (p *Program) SetNext(fd int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	var err error
	if fd < 0 {
		if err = p.objects.Next.Delete(uint32(0)); errors.Is(err, ebpf.ErrKeyNotExist) {
			err = nil
		}
	} else {
		err = p.objects.Next.Put(uint32(0), uint32(fd))
	}
	if err != nil {
		return fmt.Errorf("xdp: set next program: %w", explain(err))
	}
	return nil
}

// Stats returns how many packets there were of each [Reason], since the program
// was loaded, or pinned first.
func (p *Program) Stats() (map[Reason]uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	out := make(map[Reason]uint64, numReasons)
	var perCPU []uint64
	for r := range numReasons {
		if err := p.objects.Counters.Lookup(uint32(r), &perCPU); err != nil {
			return nil, fmt.Errorf("xdp: read counters: %w", err)
		}
		for _, n := range perCPU {
			out[r] += n
		}
	}
	return out, nil
}

// testContext is struct xdp_md, as BPF_PROG_TEST_RUN wants it.
type testContext struct {
	Data, DataEnd, DataMeta            uint32
	IngressIfindex, RxQueue, EgressIfi uint32
}

// Test runs the program on a frame as if that had come in by an interface, and
// returns the verdict and the frame that results. Nothing is sent.
func (p *Program) Test(iface int, frame []byte) (Verdict, []byte, error) {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return Aborted, nil, ErrClosed
	}
	opts := ebpf.RunOptions{
		Data:    frame,
		DataOut: make([]byte, len(frame)+256),
		Context: testContext{DataEnd: uint32(len(frame)), IngressIfindex: uint32(iface)},
	}
	verdict, err := p.objects.Quicway.Run(&opts)
	if err != nil {
		return Aborted, nil, fmt.Errorf("xdp: test run: %w", explain(err))
	}
	return Verdict(verdict), opts.DataOut, nil
}
