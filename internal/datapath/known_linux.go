package datapath

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// knownFlows is the table of the flows that have rules: the maps known and slots in bpf/flows.h, in
// the memory that the program reads. The program's mutex guards it. The methods of a nil table do
// nothing.
type knownFlows struct {
	pairHash
	memory [2][]byte         // of the two maps
	flows  []datapathFlow    // of the map known
	table  []datapathSlotSet // of the map slots
	slots  []uint32          // of each flow: the number of its slot, plus one; 0: the flow is free
	free   []uint32          // a ring of free flows, of which the one that was removed first is used first
	first  int               // in free
	frees  int               // how many there are
}

const (
	// spareFlows is how many flows stay free. A flow that is removed is used again only after so many
	// others, because a CPU may still count a packet in it.
	spareFlows = 64
	// victims is about the number of flows of which one is removed to make room.
	victims = 16
)

// newKnownFlows maps the memory of the table, and sets the masks of IDs.
func newKnownFlows(h pairHash, maps *datapathMaps) (*knownFlows, error) {
	for n := range MaxFlowID + 1 {
		if err := maps.IdMasks.Put(uint32(n), mask(n)); err != nil {
			return nil, fmt.Errorf("set the masks of IDs: %w", err)
		}
	}
	var memory [2][]byte
	for i, m := range []*ebpf.Map{maps.Known, maps.Slots} {
		size := int(m.MaxEntries()) * int(m.ValueSize())
		page := os.Getpagesize()
		b, err := unix.Mmap(m.FD(), 0, (size+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("map the memory of the flows: %w", err), (&knownFlows{memory: memory}).close())
		}
		memory[i] = b
	}
	k := tableOf(h,
		unsafe.Slice((*datapathFlow)(unsafe.Pointer(&memory[0][0])), maps.Known.MaxEntries()),
		unsafe.Slice((*datapathSlotSet)(unsafe.Pointer(&memory[1][0])), maps.Slots.MaxEntries()))
	k.memory = memory
	return k, nil
}

// tableOf returns an empty table in some memory.
func tableOf(h pairHash, flows []datapathFlow, table []datapathSlotSet) *knownFlows {
	k := &knownFlows{pairHash: h, flows: flows, table: table, slots: make([]uint32, len(flows)), free: make([]uint32, len(flows)), frees: len(flows)}
	for i := range k.free {
		k.free[i] = uint32(i)
	}
	return k
}

func (k *knownFlows) close() (err error) {
	if k == nil {
		return nil
	}
	for _, b := range k.memory {
		if b != nil {
			err = errors.Join(err, unix.Munmap(b))
		}
	}
	*k = knownFlows{}
	return err
}

// find returns the flow of a pair, or nil.
func (k *knownFlows) find(p *datapathPair) *datapathFlow {
	set, tag := k.place(p)
	for _, slot := range k.table[set].Slot {
		if uint32(slot>>32) == tag && k.flows[uint32(slot)].Pair == *p {
			return &k.flows[uint32(slot)]
		}
	}
	return nil
}

// add adds a flow. ahead is how far the monotonic clock is ahead of the program's. Another flow may
// be removed to make room: an ignored one, or, unless this one is ignored, the one without a packet
// for the longest time. add returns nil if there is no room.
func (k *knownFlows) add(f *datapathFlow, ahead int64) *datapathFlow {
	set, tag := k.place(&f.Pair)
	number, ok := k.slot(set, tag, f, ahead)
	if !ok || k.frees <= spareFlows && !k.removeOne(k.sample(), f, ahead) {
		return nil
	}
	i := k.free[k.first]
	k.first = (k.first + 1) % len(k.free)
	k.frees--
	k.flows[i], k.slots[i] = *f, number+1
	atomic.StoreUint64(k.at(number), uint64(tag)<<32|uint64(i))
	return &k.flows[i]
}

// at returns a slot by its number.
func (k *knownFlows) at(number uint32) *uint64 {
	return &k.table[number/uint32(slotsEach)].Slot[number%uint32(slotsEach)]
}

// slot returns the number of a slot for a new flow. No two flows of a set have the same tag.
func (k *knownFlows) slot(set, tag uint32, f *datapathFlow, ahead int64) (number uint32, ok bool) {
	all := make([]uint32, 0, slotsEach)
	for i, slot := range k.table[set].Slot {
		n := set*uint32(slotsEach) + uint32(i)
		switch {
		case slot == 0 && !ok:
			number, ok = n, true
		case slot != 0 && uint32(slot>>32) == tag:
			return n, k.removeOne([]uint32{uint32(slot)}, f, ahead)
		case slot != 0:
			all = append(all, uint32(slot))
		}
	}
	if ok || !k.removeOne(all, f, ahead) {
		return number, ok
	}
	for i, slot := range k.table[set].Slot {
		if slot == 0 {
			return set*uint32(slotsEach) + uint32(i), true
		}
	}
	return 0, false
}

// sample returns some flows, chosen at random, and at least one if there is one.
func (k *knownFlows) sample() (out []uint32) {
	n := uint32(len(k.flows))
	for range 2 * victims {
		if i := rand.Uint32N(n); k.slots[i] != 0 {
			out = append(out, i)
		}
	}
	for i := uint32(0); i < n && len(out) == 0; i++ {
		if k.slots[i] != 0 {
			out = append(out, i)
		}
	}
	return out
}

// removeOne removes one of some flows to make room for another one.
func (k *knownFlows) removeOne(of []uint32, room *datapathFlow, ahead int64) bool {
	var oldest *datapathFlow
	for _, i := range of {
		f := &k.flows[i]
		switch {
		case oldest == nil, f.Ignored > oldest.Ignored:
			oldest = f
		case f.Ignored == oldest.Ignored && f.lastUsed(ahead) < oldest.lastUsed(ahead):
			oldest = f
		}
	}
	if oldest == nil || room.Ignored > oldest.Ignored {
		return false
	}
	k.remove(oldest)
	return true
}

// lastUsed returns when the flow was last used, by the program's clock.
func (f *datapathFlow) lastUsed(ahead int64) int64 {
	return max(int64(f.Born)-ahead, int64(f.Direction[0].Last), int64(f.Direction[1].Last))
}

// remove removes a flow, and returns what was counted.
func (k *knownFlows) remove(f *datapathFlow) datapathFlow {
	i := uint32((uintptr(unsafe.Pointer(f)) - uintptr(unsafe.Pointer(&k.flows[0]))) / unsafe.Sizeof(*f))
	atomic.StoreUint64(k.at(k.slots[i]-1), 0)
	k.slots[i] = 0
	k.free[(k.first+k.frees)%len(k.free)] = i
	k.frees++
	return *f
}

// clear removes all flows.
func (k *knownFlows) clear() {
	for i, number := range k.slots {
		if number != 0 {
			k.remove(&k.flows[i])
		}
	}
}

// setRules changes the rules of a flow while the program may use it.
func (f *datapathFlow) setRules(rules *FlowRules, spins [2]*datapathSpin) {
	for i := range f.Direction {
		d, from := &f.Direction[i], &rules.Directions[i]
		d.store(0, 0, 0) // no packet matches while the ID changes
		d.Id = words(from.ID)
		if spins[i] != nil {
			d.Spin = *spins[i]
		}
		if rules.WholeAgain {
			atomic.StoreUint32(&d.Whole, 0)
		}
		d.store(uint8(from.IDLen), uint8(from.Match), uint16(from.Segment))
	}
	atomic.StoreUint32(&f.Ignored, bit(rules.Ignored))
}

// store stores the first fields of a direction together.
func (d *datapathDirection) store(idLen, match uint8, segment uint16) {
	head := struct {
		idLen, match uint8
		segment      uint16
	}{idLen, match, segment}
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&d.IdLen)), *(*uint32)(unsafe.Pointer(&head)))
}

// addUnreported adds what another entry of the flow has counted since before.
func (f *datapathFlow) addUnreported(since, before *datapathFlow) {
	for i := range f.Direction {
		to, now, then := &f.Direction[i].Unreported, &since.Direction[i].Unreported, &before.Direction[i].Unreported
		for ecn := range to.Packets {
			atomic.AddUint32(&to.Packets[ecn], now.Packets[ecn]-then.Packets[ecn])
		}
		atomic.AddUint64(&to.Bytes, now.Bytes-then.Bytes)
	}
}

// some returns at most n flows from a place on, and where to continue. It returns -1 at the end.
func (k *knownFlows) some(from, n int) (out []datapathFlow, next int) {
	for i := from; i < len(k.slots); i++ {
		if len(out) == n {
			return out, i
		}
		if k.slots[i] != 0 {
			out = append(out, k.flows[i])
		}
	}
	return out, -1
}
