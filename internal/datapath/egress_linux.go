package datapath

import (
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// egress is the monitor stage at egress.
type egress struct {
	objects egressObjects
	missing error // why this kernel does not have it
}

// newEgress loads the program of the monitor stage at egress, with the maps of the XDP program. If
// the kernel has no TCX, missing says so.
func newEgress(maps *datapathMaps, hash *pairHash, programs ebpf.ProgramOptions) (*egress, error) {
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
		egressMapKnown: maps.Known, egressMapSlots: maps.Slots, egressMapSeen: maps.Seen, egressMapIdMasks: maps.IdMasks,
	}
	for name, m := range shared { // the sizes were set when the maps were created
		spec.Maps[name].MaxEntries = m.MaxEntries()
	}
	if err := errors.Join(specClock(spec.Variables[egressVarTickNs]), hash.set(spec.Variables[egressVarPairKeys], spec.Variables[egressVarSlotsShift])); err != nil {
		return nil, err
	}
	var wanted struct {
		QuicwayOut   *ebpf.Program  `ebpf:"quicway_out"`
		IgnoredRound *ebpf.Variable `ebpf:"ignored_round"`
		Interfaces   *ebpf.Variable `ebpf:"interfaces"`
	}
	if err := spec.LoadAndAssign(&wanted, &ebpf.CollectionOptions{MapReplacements: shared, Programs: programs}); err != nil {
		return nil, err
	}
	e.objects.QuicwayOut, e.objects.IgnoredRound, e.objects.Interfaces = wanted.QuicwayOut, wanted.IgnoredRound, wanted.Interfaces
	return e, nil
}

// haveTCX returns ErrUnsupported if the kernel has no TCX hooks. It queries the hook of the
// loopback interface, which all network namespaces have.
func haveTCX() error {
	const loopback = 1
	_, err := link.QueryPrograms(link.QueryOptions{Target: loopback, Attach: ebpf.AttachTCXEgress})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("%w: Linux %s lacks TCX, which the monitor stage needs to see egress packets (Linux 6.6): %w", ErrUnsupported, kernelRelease(), err)
	}
	return nil // attach will return other errors
}

// attach attaches the program to an interface. On loopback that is not necessary: egress packets
// are seen at ingress.
func (e *egress) attach(iface *net.Interface) (link.Link, error) {
	switch {
	case e == nil || iface.Flags&net.FlagLoopback != 0:
		return nil, nil
	case e.missing != nil:
		return nil, e.missing
	case len(iface.HardwareAddr) != 6:
		return nil, fmt.Errorf("%w: %s has no Ethernet headers", ErrUnsupported, iface.Name)
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: iface.Index, Program: e.objects.QuicwayOut, Attach: ebpf.AttachTCXEgress})
	if err != nil {
		return nil, fmt.Errorf("attach at egress: %w", explain(err))
	}
	return l, nil
}

// setRound sets the round of the cache of ignored flows in the egress program.
func (e *egress) setRound(round uint32) error {
	if e == nil || e.missing != nil {
		return nil
	}
	return e.objects.IgnoredRound.Set(round)
}

// setInterfaces says which interfaces the XDP program is attached to: their packets were seen when
// they leave by another one.
func (e *egress) setInterfaces(attached map[int]*attachment) error {
	if e == nil || e.missing != nil {
		return nil
	}
	const several = ^uint32(0) // SEVERAL in bpf/egress.c
	var places [64]uint32      // INTERFACES
	for index := range attached {
		if place := &places[index%len(places)]; *place == 0 {
			*place = uint32(index)
		} else {
			*place = several
		}
	}
	return e.objects.Interfaces.Set(places)
}

func (e *egress) close() error {
	if e == nil || e.missing != nil {
		return nil
	}
	return e.objects.QuicwayOut.Close()
}

// endEgress detaches the program at egress from an interface. It is never pinned, because no
// process would read the samples.
func (a *attachment) endEgress() error {
	if a.egress == nil {
		return nil
	}
	l := a.egress
	a.egress = nil
	if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
		return errors.Join(err, l.Close())
	}
	return l.Close() // ENOLINK: the interface was deleted
}

// SeesEgress says whether the monitor stage sees the egress packets of an interface: xdp.Program
// documents it.
func (p *Program) SeesEgress(iface string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, err := p.attachmentLocked(iface)
	return err == nil && a != nil && a.egress != nil
}
