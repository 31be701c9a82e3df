package splice

import (
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// attachment is the attachment of the programs to an interface. The links are kept here: the kernel
// detaches a program when nothing refers to its link.
type attachment struct {
	index           int
	name            string           // of the interface, when the programs were attached
	mac             net.HardwareAddr // of the interface then
	ingress, egress link.Link
	inherited       bool // from an earlier process, and Attach was not called since
}

// Attach attaches the programs to an interface: connections can be spliced if the packets of both
// go over attached interfaces. Other TCX programs on the interface stay, and run before.
//
// Attach returns ErrUnsupported if the interface has no Ethernet headers or is the loopback
// interface, and ErrBusy if the program is attached to it.
func (p *Program) Attach(ifname string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.attachLocked(ifname); err != nil {
		return fmt.Errorf("splice: attach to %s: %w", ifname, err)
	}
	p.log.Info("attached", "interface", ifname)
	return nil
}

func (p *Program) attachLocked(ifname string) error {
	if p.closed {
		return ErrClosed
	}
	iface, err := net.InterfaceByName(ifname)
	if err != nil {
		return err
	}
	if err := p.forgetLocked(iface); err != nil {
		return err
	}
	before := p.attached[iface.Index]
	switch {
	case before != nil && before.inherited:
		before.inherited = false
		return nil
	case before != nil:
		return fmt.Errorf("%w: the program is already attached", ErrBusy)
	case iface.Flags&net.FlagLoopback != 0:
		return fmt.Errorf("%w: what is forwarded to a loopback interface has no route", ErrUnsupported)
	case len(iface.HardwareAddr) != 6:
		return fmt.Errorf("%w: the interface has no Ethernet headers", ErrUnsupported)
	}
	a := &attachment{index: iface.Index, name: iface.Name, mac: iface.HardwareAddr}
	if a.ingress, err = attachTCX(iface.Index, p.objects.SpliceIngress, ebpf.AttachTCXIngress); err != nil {
		return err
	}
	if a.egress, err = attachTCX(iface.Index, p.objects.SpliceEgress, ebpf.AttachTCXEgress); err != nil {
		return errors.Join(err, end(a.ingress))
	}
	if err := p.pin.keep(a); err != nil {
		return errors.Join(err, p.pin.forget(a.index), end(a.ingress), end(a.egress))
	}
	p.attachedLocked(a)
	return nil
}

// attachedLocked notes an attachment.
func (p *Program) attachedLocked(a *attachment) {
	p.attached[a.index] = a
	p.keeper.do(func() { p.keeper.attached[uint32(a.index)] = a })
}

func attachTCX(iface int, program *ebpf.Program, hook ebpf.AttachType) (link.Link, error) {
	l, err := link.AttachTCX(link.TCXOptions{Interface: iface, Program: program, Attach: hook})
	if err != nil {
		return nil, explain(err)
	}
	return l, nil
}

// forgetLocked removes the attachment to a deleted interface that had the same name or index as
// another one.
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
	info, err := a.ingress.Info()
	if err != nil || info.TCX() == nil {
		return false
	}
	return info.TCX().Ifindex == 0
}

// attachmentLocked finds an attachment by the name that the interface has now, or had before it was
// deleted. It returns nil if there is none.
func (p *Program) attachmentLocked(ifname string) *attachment {
	if iface, err := net.InterfaceByName(ifname); err == nil {
		return p.attached[iface.Index]
	}
	for _, a := range p.attached {
		if a.name == ifname {
			return a
		}
	}
	return nil
}

func (p *Program) detachLocked(a *attachment) error {
	delete(p.attached, a.index)
	p.keeper.do(func() { delete(p.keeper.attached, uint32(a.index)) })
	return errors.Join(p.pin.forget(a.index), end(a.ingress), end(a.egress))
}

// close closes the links, and leaves the programs on the interface if the links are pinned.
func (a *attachment) close() error {
	var errs []error
	for _, l := range []link.Link{a.ingress, a.egress} {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

// letStay closes all attachments.
func (p *Program) letStay() error {
	var errs []error
	for _, a := range p.attached {
		errs = append(errs, a.close())
	}
	clear(p.attached)
	return errors.Join(errs...)
}

// end detaches a program at once. Close of the link alone would do so later.
func end(l link.Link) error {
	err := l.Detach()
	if errors.Is(err, unix.ENOLINK) {
		err = nil // the interface was deleted
	}
	return errors.Join(err, l.Close())
}
