package splice

import (
	"errors"
	"sync/atomic"
	"time"
)

// ended is the entry of a pair that has ended. It forwards late packets for a while.
type ended struct {
	slot, generation uint32
	at               time.Time
}

var errNoEntry = errors.New("all entries for pairs are in use")

// add gives a pair an entry in state QUIET, which fill has filled. It returns an error, and changes
// nothing, if there is no room.
func (k *keeper) add(p *Pair, fill func(*splicePair)) error {
	slot, ok := k.allocate()
	if !ok {
		return errNoEntry
	}
	entry := &k.table.pairs[slot]
	// A program that still has a packet of the pair before finds by the generation that it is late.
	atomic.AddUint32(&entry.Generation, 1)
	entry.Halves, entry.Note = [2]spliceHalf{}, 0
	for i := range entry.Halves {
		leaves := p.ends[1-i]
		entry.Halves[i].setAddrs(leaves.local, leaves.remote)
		if leaves.local.Addr().Is6() {
			entry.Halves[i].Flags |= halfV6
		}
	}
	fill(entry)
	p.slot, p.entry = slot, entry
	entry.setState(quiet)
	for i, end := range p.ends {
		if err := k.put(end, slot, direction(i)); err != nil {
			k.free(slot)
			return err
		}
	}
	if err := k.pin.note(slot, &p.notes); err != nil {
		k.free(slot)
		return err
	}
	k.enter(p)
	return nil
}

// enter notes a pair that has an entry.
func (k *keeper) enter(p *Pair) {
	k.pairs[p.slot] = p
	if !k.reading {
		k.reading = true
		k.readers.Go(k.read)
	}
}

// put adds a flow. What is left of an earlier connection with the same addresses makes room.
func (k *keeper) put(t tuple, slot uint32, d direction) error {
	err := k.flows.put(t, slot, d)
	if !errors.Is(err, errTaken) {
		return err
	}
	if other, _, ok := k.flows.find(t); ok && k.table.pairs[other].state() == closed {
		k.free(other)
		return k.flows.put(t, slot, d)
	}
	return err
}

// allocate returns a slot. If there is none, it ends the entry that has forwarded late packets for
// longest.
func (k *keeper) allocate() (slot uint32, ok bool) {
	for {
		switch {
		case k.fresh < uint32(len(k.table.pairs)):
			k.fresh++
			return k.fresh - 1, true
		case len(k.unused) > 0:
			slot, k.unused = k.unused[0], k.unused[1:]
			return slot, true
		case len(k.ended) == 0:
			return 0, false
		}
		k.freeOldest()
	}
}

// freeOldest frees the entry that has forwarded late packets for longest.
func (k *keeper) freeOldest() {
	e := k.ended[0]
	k.ended = k.ended[1:]
	k.freeEnded(e.slot, e.generation)
}

// freeEnded frees the entry of a pair that has ended, unless another pair uses it by now.
func (k *keeper) freeEnded(slot, generation uint32) {
	entry := &k.table.pairs[slot]
	if entry.Generation == generation && entry.state() == closed {
		k.free(slot)
	}
}

// free makes an entry available to others.
func (k *keeper) free(slot uint32) {
	entry := &k.table.pairs[slot]
	for i := range entry.Halves {
		// The packets of a direction come on the connection on which those of the other
		// one leave.
		if err := k.flows.delete(entry.Halves[1-i].connection(), slot, direction(i)); err != nil {
			k.log.Error("remove the flow of a spliced connection", "err", err)
		}
	}
	entry.setState(off)
	k.unused = append(k.unused, slot)
}

// remove takes the entry of a pair away.
func (k *keeper) remove(p *Pair) {
	delete(k.pairs, p.slot)
	k.free(p.slot)
}
