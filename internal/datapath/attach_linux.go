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

// Attach puts the program on an interface, and says in which mode. Packets may
// then also be forwarded to leave by that interface. Auto tries Native first, and
// logs why that is not possible; with a relay stage on a veth or a bond it is Generic. An
// interface without Ethernet headers, as WireGuard's or a TUN device, is refused with
// ErrUnsupported. With flows to count, what leaves by the interface
// is seen as well, where [Program.SeesEgress] says so.
//
// If the interface is deleted, and another is made with its name in the network
// namespace of the calling thread, the program is attached to that as well, until
// Detach or Close: that takes three descriptors and a goroutine for each interface,
// keeps the namespace, and needs CAP_SYS_ADMIN if it is not the process's own. Attach is
// no error then for whoever watches by himself. Errors wrap ErrBusy, ErrMTU,
// ErrUnsupported, ErrPermission or ErrClosed.
func (p *Program) Attach(iface string, mode Mode) (Mode, error) {
	got, before, err := p.attachAndFollow(iface, mode)
	before.stop()
	if err != nil {
		return mode, fmt.Errorf("xdp: attach to %s: %w", iface, err)
	}
	p.log.Info("attached", "interface", iface, "mode", got)
	return got, nil
}

// attachAndFollow returns the follower that was there before, which the caller stops
// without the lock.
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
			return nil, fmt.Errorf("%w: this program is attached already", ErrBusy)
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
		return nil, fmt.Errorf("%w: what comes in by %s has no Ethernet header, as with tunnels; Go serves it without the program", ErrUnsupported, name)
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
	if a.egress, err = p.egress.attach(iface); err != nil {
		p.log.Warn("what leaves by the interface is not seen", "interface", name, "err", err)
	}
	p.attached[a.index] = a
	return a, p.renewHopsLocked()
}

// replaceLocked attaches in another mode than the follower has, or leaves all as it is.
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

// forgetLocked forgets interfaces that are gone and had the name of another, or its
// index.
func (p *Program) forgetLocked(iface *net.Interface) error {
	for _, a := range p.attached {
		if (a.name == iface.Name || a.index == iface.Index) && a.gone() {
			return p.detachLocked(a)
		}
	}
	return nil
}

// gone says whether the interface does not exist any more.
func (a *attachment) gone() bool {
	a.linkMu.Lock()
	defer a.linkMu.Unlock()
	info, err := a.link.Info()
	if err != nil || info.XDP() == nil {
		return false
	}
	return info.XDP().Ifindex == 0
}

// attachNew attaches to an interface that has no program yet.
func (p *Program) attachNew(iface *net.Interface, mode Mode) (*attachment, error) {
	a := &attachment{index: iface.Index, name: iface.Name, mode: mode}
	if mode == Auto {
		a.mode = p.bestMode(iface)
	}
	var err error
	a.link, err = p.link(a)
	if mode == Auto && a.mode == Native && err != nil && !errors.Is(err, ErrBusy) && !errors.Is(err, ErrPermission) {
		p.log.Info("no native mode", "interface", iface.Name, "err", err)
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

// lossy says why the relay stage loses packets, or forwards none, in native mode on a
// kind of interface.
var lossy = map[string]string{
	"veth": "the other end loses what native mode sends, unless it has an XDP program as well",
	"bond": "packets come in by the ports of a bond, which need forwarding enabled, and may be veths",
}

// bestMode is the mode that Auto tries first. Nobody can find out from here whether
// native mode is of use where it may not be.
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
	p.log.Info("generic mode; native mode has to be asked for", "interface", iface.Name, "kind", l.Type(), "why", why)
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
		return nil, fmt.Errorf("%w: %s", ErrBusy, programName(a.index))
	case errors.Is(err, unix.ERANGE):
		return nil, fmt.Errorf("%w: %w", ErrMTU, err)
	case err != nil:
		return nil, explain(err)
	}
	return l, nil
}

// holder names the program that is attached to an interface.
func programName(index int) string {
	l, err := netlink.LinkByIndex(index)
	if err != nil || l.Attrs().Xdp == nil || l.Attrs().Xdp.ProgId == 0 {
		return "which it does not name"
	}
	id := l.Attrs().Xdp.ProgId
	name := "unknown"
	if prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(id)); err == nil {
		if info, err := prog.Info(); err == nil {
			name = info.Name
		}
		prog.Close()
	}
	return fmt.Sprintf("program %d, %q", id, name)
}

// Detach takes the program off an interface, also off one that a process before
// this one has left it on ([Config].Pin). It is no error if it is not there.
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

// detach returns the interface's follower, which the caller stops without the lock.
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

// attachmentLocked finds what is attached to an interface by the name that it has
// now, or had when it was there. It returns nil if nothing is.
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
		err = nil // the interface is gone
	}
	return errors.Join(err, p.renewHopsLocked(), a.end())
}

// end takes the program off the interface, pinned or not.
func (a *attachment) end() error {
	a.linkMu.Lock()
	defer a.linkMu.Unlock()
	err := a.link.Unpin()
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	// Closing would do the same, but not at once.
	return errors.Join(err, a.link.Detach(), a.link.Close(), a.endEgress())
}

// leave lets a pinned program stay on the interface.
func (a *attachment) letStay() error {
	a.linkMu.Lock()
	defer a.linkMu.Unlock()
	return errors.Join(a.link.Close(), a.endEgress())
}

// renewHopsLocked makes the program ask for all next hops again.
func (p *Program) renewHopsLocked() error {
	p.epoch++
	return p.objects.Epoch.Set(p.epoch)
}
