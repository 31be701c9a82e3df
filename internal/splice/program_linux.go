package splice

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Program is the programs in the kernel with their maps. All methods may be called concurrently.
type Program struct {
	log     *slog.Logger
	objects spliceObjects
	pairs   *pairTable
	flows   *flowTable
	events  *ringbuf.Reader
	keeper  *keeper
	pin     *pin // nil: the pairs end with the process

	mu       sync.Mutex // guards the following
	closing  bool       // Close was called
	closed   bool
	attached map[int]*attachment // by index of the interface
}

// Load loads the programs into the kernel, and attaches them to no interface. cfg may be nil. The
// caller closes the program.
//
// Load returns ErrUnsupported if the system or its version cannot splice connections, ErrPermission
// if the process lacks a capability, ErrConfig if the configuration cannot work, and ErrBusy if
// another process uses the directory of Config.Pin.
func Load(cfg *Config) (*Program, error) {
	conf, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("splice: %w", err)
	}
	p := &Program{log: conf.Logger, attached: make(map[int]*attachment)}
	if p.pin, err = openPin(conf.Pin); err != nil {
		return nil, fmt.Errorf("splice: load: %w", err)
	}
	if err = p.load(conf); err == nil {
		err = p.adopt()
	}
	if err != nil {
		return nil, fmt.Errorf("splice: load: %w", errors.Join(explain(err), p.release(), p.letStay(), p.pin.abandon()))
	}
	return p, nil
}

func (p *Program) load(conf *Config) error {
	if err := haveTCX(); err != nil {
		return err
	}
	spec, err := loadSplice()
	if err != nil {
		return err
	}
	p.flows = new(flowTable)
	pairs := p.pin.pairs(conf.MaxPairs)
	if pairs != conf.MaxPairs {
		p.log.Warn("MaxPairs stays as it was when the pairs were pinned", "pairs", pairs, "configured", conf.MaxPairs)
	}
	if p.flows.keys, err = p.pin.open(pairs); err != nil {
		return err
	}
	sets := tableSets(pairs)
	spec.Maps[spliceMapPairs].MaxEntries = uint32(pairs)
	spec.Maps[spliceMapFlows].MaxEntries = sets
	err = errors.Join(spec.Variables[spliceVarSetMask].Set(sets-1), spec.Variables[spliceVarHashKeys].Set(p.flows.keys))
	if err != nil {
		return err
	}
	if err := p.pin.load(spec, &p.objects); err != nil {
		return err
	}
	p.flows.live = p.objects.Live
	if p.flows.sets, err = mapValues[spliceFlowSet](p.flows, p.objects.Flows); err != nil {
		return err
	}
	if p.pairs, err = newPairTable(p.objects.Pairs); err != nil {
		return err
	}
	if p.events, err = ringbuf.NewReader(p.objects.Events); err != nil {
		return err
	}
	p.keeper, err = newKeeper(p)
	return err
}

// release closes what load has opened.
func (p *Program) release() error {
	var errs []error
	if p.events != nil {
		errs = append(errs, p.events.Close())
	}
	return errors.Join(append(errs, p.keeper.close(), p.objects.Close())...)
}

// haveTCX returns ErrUnsupported if the kernel has no TCX hooks, and ErrPermission if it does not
// tell. haveTCX queries a hook of the loopback
// interface, which all network namespaces have.
func haveTCX() error {
	if !capable(unix.CAP_NET_ADMIN) {
		return ErrPermission // the query needs it
	}
	const loopback = 1
	_, err := link.QueryPrograms(link.QueryOptions{Target: loopback, Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("%w: Linux %s has no TCX, which came with Linux 6.6: %w", ErrUnsupported, kernelRelease(), err)
	}
	return nil // LoadAndAssign will return other errors
}

// capable says whether the process has a capability.
func capable(capability uint) bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return true // unknown: the kernel will decide
	}
	return data[capability/32].Effective&(1<<(capability%32)) != 0
}

// kernelRelease returns the kernel's release, as uname -r prints it.
func kernelRelease() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "of an unknown version"
	}
	return unix.ByteSliceToString(name.Release[:])
}

// explain wraps an error of the kernel in one of the errors of this package.
func explain(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.Is(err, ErrUnsupported), errors.Is(err, ErrPermission):
		return err
	case errors.As(err, &verifier) && !capable(unix.CAP_PERFMON) && !capable(unix.CAP_SYS_ADMIN):
		return fmt.Errorf("%w: without CAP_PERFMON the verifier refuses the program: %w", ErrPermission, err)
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
