package datapath

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Attach attaches the program to an interface, and returns the mode: xdp.Program documents
// it.
func (p *Program) Attach(iface string, mode Mode) (Mode, error) {
	got, before, err := p.attachAndFollow(iface, mode)
	before.stop()
	if err != nil {
		return mode, fmt.Errorf("xdp: attach to %s: %w", iface, err)
	}
	p.log.Info("attached", "interface", iface, "mode", got)
	return got, nil
}

// attachAndFollow also returns the previous follower of the interface. The caller stops it
// after it has released the mutex.
func (p *Program) attachAndFollow(iface string, mode Mode) (got Mode, before *follower, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, err := p.attachLocked(iface, mode)
	if err != nil {
		return mode, nil, err
	}
	if before = a.follower; before == nil {
		before = p.waitingLocked(iface)
	}
	before = p.unfollowLocked(before)
	p.followLocked(a, mode)
	return a.mode, before, nil
}

// attachLocked attaches the program to an interface, or returns the attachment that its follower
// has made.
func (p *Program) attachLocked(name string, mode Mode) (*attachment, error) {
	if p.closed {
		return nil, ErrClosed
	}
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	if a := p.attached[iface.Index]; a != nil && !a.gone() {
		switch {
		case !a.byFollower:
			return nil, fmt.Errorf("%w: the program is already attached", ErrBusy)
		case mode == Auto || mode == a.mode:
			a.byFollower = false
			return a, nil
		}
		return p.replaceLocked(a, iface.Name, mode)
	}
	if err := p.forgetLocked(iface); err != nil {
		return nil, err
	}
	if iface.Flags&net.FlagLoopback == 0 && len(iface.HardwareAddr) != 6 {
		return nil, fmt.Errorf("%w: %s has no Ethernet headers; Go handles its packets without the program", ErrUnsupported, name)
	}
	a, err := p.pin.takeOver(p.objects.Quicway, iface, mode)
	if a == nil && err == nil {
		a, err = p.attachNew(iface, mode)
	}
	if err != nil {
		return nil, err
	}
	if err := p.objects.Devices.Put(uint32(a.index), uint32(a.index)); err != nil {
		return nil, errors.Join(err, a.end())
	}
	p.attached[a.index] = a
	err = p.interfacesChangedLocked()
	var unseen error
	if a.egress, unseen = p.egress.attach(iface); unseen != nil {
		p.log.Warn("egress packets of the interface are not seen", "interface", name, "err", unseen)
	}
	return a, err
}

// replaceLocked attaches the program in another mode than its follower did. If that fails,
// the follower attaches it again.
func (p *Program) replaceLocked(a *attachment, name string, mode Mode) (*attachment, error) {
	f := a.follower
	if err := p.detachLocked(a); err != nil {
		return nil, err
	}
	b, err := p.attachLocked(name, mode)
	if err != nil && f != nil {
		err = errors.Join(err, f.attachLocked(true))
	}
	return b, err
}

// forgetLocked removes the attachment to a deleted interface that had the same name or index
// as another one.
func (p *Program) forgetLocked(iface *net.Interface) error {
	for _, a := range p.attached {
		if (a.name == iface.Name || a.index == iface.Index) && a.gone() {
			return p.detachLocked(a)
		}
	}
	return nil
}

// gone says whether the interface was deleted.
func (a *attachment) gone() bool {
	a.linkMu.Lock()
	defer a.linkMu.Unlock()
	info, err := a.link.Info()
	if err != nil || info.XDP() == nil {
		return false
	}
	return info.XDP().Ifindex == 0
}

// attachNew attaches the program to an interface on which none is pinned.
func (p *Program) attachNew(iface *net.Interface, mode Mode) (*attachment, error) {
	a := &attachment{index: iface.Index, name: iface.Name, mode: mode}
	if mode == Auto {
		a.mode = p.bestMode(iface)
	}
	var err error
	a.link, err = p.link(a)
	if mode == Auto && a.mode == Native && err != nil && !errors.Is(err, ErrBusy) && !errors.Is(err, ErrPermission) {
		p.log.Info("native mode is not possible", "interface", iface.Name, "err", err)
		a.mode = Generic
		a.link, err = p.link(a)
	}
	if err != nil {
		return nil, err
	}
	if err := p.pin.keep(a); err != nil {
		return nil, errors.Join(err, a.link.Close())
	}
	return a, nil
}

// lossy has the kinds of interfaces on which the relay stage may lose packets in native mode,
// or forward none, and why.
var lossy = map[string]string{
	"veth": "the other end drops packets that native mode sends, unless it has an XDP program as well",
	"bond": "packets arrive at the ports of the bond, which need forwarding enabled, and may be veths",
}

// bestMode returns the mode that Auto tries first. On the interfaces of lossy it is Generic,
// because the process cannot find out whether native mode would work.
func (p *Program) bestMode(iface *net.Interface) Mode {
	if !slices.Contains(p.stages, RelayStage) {
		return Native
	}
	l, err := netlink.LinkByIndex(iface.Index)
	if err != nil {
		return Native
	}
	why, found := lossy[l.Type()]
	if !found {
		return Native
	}
	p.log.Info("using generic mode; native mode must be requested explicitly", "interface", iface.Name, "kind", l.Type(), "why", why)
	return Generic
}

func (p *Program) link(a *attachment) (link.Link, error) {
	flags := link.XDPDriverMode
	if a.mode == Generic {
		flags = link.XDPGenericMode
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: p.objects.Quicway, Interface: a.index, Flags: flags})
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return nil, fmt.Errorf("%w %s", ErrBusy, programName(a.index))
	case errors.Is(err, unix.ERANGE):
		return nil, fmt.Errorf("%w: %w", ErrMTU, err)
	case err != nil:
		return nil, explain(err)
	}
	return l, nil
}

// programName describes the program that is attached to an interface.
func programName(index int) string {
	l, err := netlink.LinkByIndex(index)
	if err != nil || l.Attrs().Xdp == nil || l.Attrs().Xdp.ProgId == 0 {
		return "by an unknown program"
	}
	id := l.Attrs().Xdp.ProgId
	name := "unknown"
	if prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(id)); err == nil {
		if info, err := prog.Info(); err == nil {
			name = info.Name
		}
		prog.Close()
	}
	return fmt.Sprintf("by program %d, %q", id, name)
}

// Detach detaches the program from an interface: xdp.Program documents it.
func (p *Program) Detach(iface string) error {
	before, found, err := p.detach(iface)
	before.stop()
	if err != nil {
		return fmt.Errorf("xdp: detach from %s: %w", iface, err)
	}
	if found {
		p.log.Info("detached", "interface", iface)
	}
	return nil
}

// detach returns the follower of the interface, and whether the program was attached. The
// caller stops the follower after it has released the mutex.
func (p *Program) detach(iface string) (before *follower, found bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, false, nil
	}
	a, err := p.attachmentLocked(iface)
	if a == nil || err != nil {
		return p.unfollowLocked(p.waitingLocked(iface)), false, err
	}
	before = p.unfollowLocked(a.follower)
	return before, true, p.detachLocked(a)
}

// attachmentLocked finds an attachment by the name that the interface has now, or had before
// it was deleted. It returns nil if there is none.
func (p *Program) attachmentLocked(name string) (*attachment, error) {
	if iface, err := net.InterfaceByName(name); err == nil {
		if a := p.attached[iface.Index]; a != nil {
			return a, nil
		}
		return p.pin.pinnedAttachment(iface.Index)
	}
	for _, a := range p.attached {
		if a.name == name {
			return a, nil
		}
	}
	return nil, nil
}

func (p *Program) detachLocked(a *attachment) error {
	delete(p.attached, a.index)
	if a.follower != nil {
		a.follower.attached, a.follower = nil, nil
	}
	err := p.objects.Devices.Delete(uint32(a.index))
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = nil // the interface was deleted
	}
	return errors.Join(err, p.interfacesChangedLocked(), a.end())
}

// end detaches the program from the interface, and unpins it.
func (a *attachment) end() error {
	a.linkMu.Lock()
	defer a.linkMu.Unlock()
	err := a.link.Unpin()
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	// Close alone would detach the program later, asynchronously.
	return errors.Join(err, a.link.Detach(), a.link.Close(), a.endEgress())
}

// letStay closes the attachment, and leaves the pinned program on the interface.
func (a *attachment) letStay() error {
	a.linkMu.Lock()
	defer a.linkMu.Unlock()
	return errors.Join(a.link.Close(), a.endEgress())
}

// interfacesChangedLocked invalidates all cached next hops, and tells the program at egress which
// interfaces the program is attached to.
func (p *Program) interfacesChangedLocked() error {
	p.epoch++
	return errors.Join(p.objects.Epoch.Set(p.epoch), p.egress.setInterfaces(p.attached))
}
