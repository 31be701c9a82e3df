package splice

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// adopt takes over the attachments and the pairs that an earlier process has left.
func (p *Program) adopt() error {
	if p.pin == nil {
		return nil
	}
	indices, err := p.pin.attached()
	if err != nil {
		return err
	}
	if len(indices) > 0 { // the new programs have to look for flows from their first packet on
		if err := p.keeper.flows.live.Set(uint32(1)); err != nil {
			return err
		}
	}
	for _, index := range indices {
		if err := p.adoptLinks(index); err != nil {
			return fmt.Errorf("take over interface %d: %w", index, err)
		}
	}
	p.keeper.do(func() { err = p.keeper.adopt() })
	return err
}

// adoptLinks replaces the programs that an earlier process has left on an interface.
func (p *Program) adoptLinks(index int) error {
	a := &attachment{index: index, inherited: true}
	if iface, err := net.InterfaceByIndex(index); err == nil {
		a.name, a.mac = iface.Name, iface.HardwareAddr
	}
	for _, half := range []struct {
		to      *link.Link
		hook    string
		program *ebpf.Program
	}{{&a.ingress, pinnedIngress, p.objects.SpliceIngress}, {&a.egress, pinnedEgress, p.objects.SpliceEgress}} {
		l, err := link.LoadPinnedLink(p.pin.linkPath(index, half.hook), nil)
		if err == nil {
			*half.to = l
			err = l.Update(half.program)
		}
		switch {
		case errors.Is(err, unix.ENOLINK), errors.Is(err, unix.ENOENT): // the interface was deleted
			return errors.Join(p.pin.forget(index), a.close())
		case err != nil:
			return errors.Join(explain(err), a.close())
		}
	}
	p.attachedLocked(a)
	return nil
}

// adopt takes over the pairs that are in the pinned maps.
func (k *keeper) adopt() error {
	k.fresh = uint32(len(k.table.pairs))
	if err := k.flows.adopt(func(slot uint32) bool {
		return int(slot) < len(k.table.pairs) && k.table.pairs[slot].state() != off
	}); err != nil {
		return err
	}
	for i := range k.table.pairs {
		slot, entry := uint32(i), &k.table.pairs[i]
		switch entry.state() {
		case off:
			k.unused = append(k.unused, slot)
		case quiet:
			// Its sockets have ended with the process.
			k.count(LostInterrupted)
			k.free(slot)
		case closed:
			k.ended = append(k.ended, ended{slot: slot, generation: entry.Generation, at: time.Now()})
		default:
			k.adoptPair(slot, entry)
		}
	}
	return nil
}

// adoptPair takes over a pair.
func (k *keeper) adoptPair(slot uint32, entry *splicePair) {
	// The packets of a direction leave on the other connection.
	p := newPair(k, [2]tuple{entry.Halves[fromUpstream].connection(), entry.Halves[fromClient].connection()})
	p.slot, p.entry, p.taken = slot, entry, true
	notes, err := k.pin.noted(slot)
	if err != nil {
		k.log.Error("the notes of a pair cannot be read", "client", p.ends[fromClient].remote, "err", err)
	}
	p.notes = notes
	for i := range p.streams {
		h := &entry.Halves[i]
		t := h.traffic()
		p.streams[i].begin(h.streamEnd(), t.Bytes-t.Retransmitted)
	}
	k.enter(p)
	if entry.state() == pending {
		k.count(LostInterrupted)
		k.abort(p, Lost)
		return
	}
	entry.setState(active)
	for i := range p.conns {
		l := p.leg(direction(i))
		fd, err := l.reserve()
		if err == nil {
			p.conns[i], err = k.open(l, fd, peekPast{})
		}
		if err != nil {
			k.count(LostAddress)
			k.log.Warn("a pair of an earlier process cannot be taken over", "end", p.ends[i].remote, "err", err)
			k.abort(p, Lost)
			return
		}
	}
	k.look(p)
}
