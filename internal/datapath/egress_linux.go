package datapath

import (
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// egress is the monitor stage for what leaves by an interface.
type egress struct {
	objects egressObjects
	missing error // why there is none
}

// newEgress loads the program for what leaves, with the maps of the one for what
// comes in. A kernel without TCX has none.
func newEgress(maps *datapathMaps, programs ebpf.ProgramOptions) (*egress, error) {
	e := &egress{missing: haveTCX()}
	if e.missing != nil {
		return e, nil
	}
	spec, err := loadEgress()
	if err != nil {
		return nil, err
	}
	shared := map[string]*ebpf.Map{
		egressMapBlank: maps.Blank, egressMapDevices: maps.Devices, egressMapSamples: maps.Samples,
		egressMapOutcomes: maps.Outcomes, egressMapIgnoredFlows: maps.IgnoredFlows, egressMapFlows: maps.Flows,
	}
	for name, m := range shared { // the sizes are those that were set
		spec.Maps[name].MaxEntries = m.MaxEntries()
	}
	if err := specClock(spec.Variables[egressVarTickNs]); err != nil {
		return nil, err
	}
	var wanted struct {
		QuicwayOut   *ebpf.Program  `ebpf:"quicway_out"`
		IgnoredRound *ebpf.Variable `ebpf:"ignored_round"`
	}
	if err := spec.LoadAndAssign(&wanted, &ebpf.CollectionOptions{MapReplacements: shared, Programs: programs}); err != nil {
		return nil, err
	}
	e.objects.QuicwayOut, e.objects.IgnoredRound = wanted.QuicwayOut, wanted.IgnoredRound
	return e, nil
}

// haveTCX returns ErrUnsupported if the kernel has no TCX hooks. It asks for the
// programs at that of an interface that all network namespaces have.
func haveTCX() error {
	const loopback = 1
	_, err := link.QueryPrograms(link.QueryOptions{Target: loopback, Attach: ebpf.AttachTCXEgress})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("%w: Linux %s lacks TCX, by which the monitor stage sees what leaves an interface: that needs Linux 6.6: %w", ErrUnsupported, kernelRelease(), err)
	}
	return nil // or attaching will say what is wrong
}

// attach puts it on an interface. On loopback there is no need: all that leaves
// comes in.
func (e *egress) attach(iface *net.Interface) (link.Link, error) {
	switch {
	case e == nil || iface.Flags&net.FlagLoopback != 0:
		return nil, nil
	case e.missing != nil:
		return nil, e.missing
	case len(iface.HardwareAddr) != 6:
		return nil, fmt.Errorf("%w: what leaves by %s has no Ethernet header", ErrUnsupported, iface.Name)
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: iface.Index, Program: e.objects.QuicwayOut, Attach: ebpf.AttachTCXEgress})
	if err != nil {
		return nil, fmt.Errorf("what leaves: %w", explain(err))
	}
	return l, nil
}

func (e *egress) setRound(round uint32) error {
	if e == nil || e.missing != nil {
		return nil
	}
	return e.objects.IgnoredRound.Set(round)
}

func (e *egress) close() error {
	if e == nil || e.missing != nil {
		return nil
	}
	return e.objects.QuicwayOut.Close()
}

// endEgress takes it off an interface. It is never pinned: nobody would read.
func (a *attachment) endEgress() error {
	if a.egress == nil {
		return nil
	}
	l := a.egress
	a.egress = nil
	if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
		return errors.Join(err, l.Close())
	}
	return l.Close() // without the interface there is nothing to detach from
}

// SeesEgress says whether the monitor stage sees what leaves by an interface that
// the program is attached to. That needs Linux 6.6 and Ethernet; elsewhere it sees
// what comes in, and the log of Attach says so. What this host forwards is seen
// once, where it comes in.
func (p *Program) SeesEgress(iface string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, err := p.attachmentLocked(iface)
	return err == nil && a != nil && a.egress != nil
}
