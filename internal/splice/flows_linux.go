package splice

import (
	"errors"
	"math/bits"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"github.com/quicway/quicway/internal/hashspread"
)

// tuple has the addresses of a connection of this host.
type tuple struct{ remote, local netip.AddrPort }

var (
	// errFull: the set of the table to which a tuple belongs has no free slot.
	errFull = errors.New("the table of flows is full")
	// errTaken: the table has the tuple, or another one with the same hash.
	errTaken = errors.New("the table of flows has such a flow")
)

// slotsPerFlow is how many slots the table has for each flow. With 4, one or two flows of ten thousand
// with random addresses find no free slot until the table has all the flows that it is made for, and
// at most one in a hundred of those that follow each other (newKeys).
const slotsPerFlow = 4

// flowTable is the table by which the programs find the pair of a packet. bpf/table.h reads it.
type flowTable struct {
	sets []spliceFlowSet
	keys [hashKeys]uint64
	live *ebpf.Variable

	mu    sync.Mutex
	count uint32 // of flows
}

// tableSets returns how many sets a table for so many pairs has.
func tableSets(pairs int) uint32 {
	return 1 << bits.Len(uint(2*pairs*slotsPerFlow-1)/uint(setSlots))
}

// newKeys returns random keys for the table of so many pairs, which spread flows whose addresses or
// ports follow each other.
func newKeys(pairs int) [hashKeys]uint64 {
	sets := tableSets(pairs)
	f := &flowTable{}
	var sequences []hashspread.Sequence
	for _, s := range []struct {
		length int
		count  func(t *tuple, n uint32)
	}{
		{1 << 16, func(t *tuple, n uint32) { t.remote = netip.AddrPortFrom(t.remote.Addr(), uint16(n)) }},
		{1 << 16, func(t *tuple, n uint32) { t.local = netip.AddrPortFrom(t.local.Addr(), uint16(n)) }},
		{0, func(t *tuple, n uint32) { t.remote = netip.AddrPortFrom(addr4(n), 443) }},
		{0, func(t *tuple, n uint32) { t.local = netip.AddrPortFrom(addr4(n), 443) }},
		{0, func(t *tuple, n uint32) { t.remote = netip.AddrPortFrom(prefix6(n), 443) }},
	} {
		sequences = append(sequences, hashspread.Sequence{Length: s.length, Set: func(n uint32) uint32 {
			t := tuple{netip.AddrPortFrom(addr4(1), 443), netip.AddrPortFrom(addr4(2), 443)}
			s.count(&t, n)
			return f.hash(t) & (sets - 1)
		}})
	}
	hashspread.Choose(f.keys[:], sets, setSlots, 2*pairs, sequences)
	return f.keys
}

// addr4 is the n-th address of IPv4, and prefix6 an address of the n-th /64 of a /32.
func addr4(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

func prefix6(n uint32) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), 15: 1})
}

// hash is hash in bpf/table.h.
func (f *flowTable) hash(t tuple) uint32 {
	remote, rport := words(t.remote)
	local, lport := words(t.local)
	sum := f.keys[0] + f.keys[1]*uint64(uint32(rport)<<16|uint32(lport))
	sum += f.keys[2]*uint64(remote[3]) + f.keys[3]*uint64(local[3])
	for i := range 3 { // zeros for IPv4
		sum += f.keys[4+i]*uint64(remote[i]) + f.keys[7+i]*uint64(local[i])
	}
	return uint32(sum >> 32)
}

func (f *flowTable) set(hash uint32) *spliceFlowSet { return &f.sets[hash&uint32(len(f.sets)-1)] }

// slot is the content of a slot: the hash, and the pair and direction of the packets that come from
// the tuple's remote end.
func slot(hash, pair uint32, d direction) uint64 {
	return uint64(hash)<<32 | uint64(pair<<1|uint32(d)) + 1
}

// put makes the programs find a pair for the packets that come from the tuple's remote end. It
// returns errFull or errTaken if there is no room for the tuple.
func (f *flowTable) put(t tuple, pair uint32, d direction) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.hash(t)
	slots := &f.set(h).Slots
	free := -1
	for i, s := range slots {
		switch {
		case s == 0:
			free = i
		case uint32(s>>32) == h:
			return errTaken
		}
	}
	if free < 0 {
		return errFull
	}
	if err := f.live.Set(f.count + 1); err != nil {
		return err
	}
	f.count++
	atomic.StoreUint64(&slots[free], slot(h, pair, d))
	return nil
}

// delete undoes put. It does nothing if the tuple leads to another pair by now.
func (f *flowTable) delete(t tuple, pair uint32, d direction) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.hash(t)
	slots := &f.set(h).Slots
	for i := range slots {
		if slots[i] == slot(h, pair, d) {
			atomic.StoreUint64(&slots[i], 0)
			f.count--
			return f.live.Set(f.count)
		}
	}
	return nil
}

// adopt removes the flows of pairs that are not in use from a table that was filled by an earlier
// process, and counts the others.
func (f *flowTable) adopt(used func(pair uint32) bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count = 0
	for i := range f.sets {
		for j, s := range f.sets[i].Slots {
			switch {
			case s == 0:
			case used((uint32(s) - 1) >> 1):
				f.count++
			default:
				atomic.StoreUint64(&f.sets[i].Slots[j], 0)
			}
		}
	}
	return f.live.Set(f.count)
}

// find returns the pair and the direction of a tuple. Another tuple may have the same hash, so the
// caller compares the addresses of the pair.
func (f *flowTable) find(t tuple) (pair uint32, d direction, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.hash(t)
	for _, s := range f.set(h).Slots {
		if uint32(s>>32) == h && uint32(s) != 0 {
			flow := uint32(s) - 1
			return flow >> 1, direction(flow & 1), true
		}
	}
	return 0, 0, false
}

// len returns the number of flows.
func (f *flowTable) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int(f.count)
}
