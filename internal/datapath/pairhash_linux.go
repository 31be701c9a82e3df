package datapath

import (
	"encoding/binary"
	"math/bits"

	"github.com/cilium/ebpf"

	"github.com/quicway/quicway/internal/hashspread"
)

// pairHash is the hash of pairs: hash_pair in bpf/monitor.h.
type pairHash struct {
	keys  [pairWords]uint64
	shift uint32
}

const (
	pairWords = 9 // PAIR_WORDS in bpf/flows.h
	slotsEach = len(datapathSlotSet{}.Slot)
	// slotsPerFlow is at least how many slots there are for a flow. With four, fewer than one set in
	// a thousand overflows.
	slotsPerFlow = 4
)

// newPairHash returns a hash with random keys for a table of so many flows, which spread pairs whose
// addresses or ports follow each other.
func newPairHash(flows int) (h pairHash) {
	h.shift = uint32(64 - max(bits.Len(uint(max(flows*slotsPerFlow/slotsEach-1, 1))), 1))
	hashspread.Choose(h.keys[:], h.sets(), slotsEach, flows, h.sequences())
	return h
}

// sets returns the number of sets of slots.
func (h *pairHash) sets() uint32 { return 1 << (64 - h.shift) }

// place returns the set of a pair, and its tag.
func (h *pairHash) place(p *datapathPair) (set, tag uint32) {
	sum := uint64(uint32(p.A_port)<<16|uint32(p.B_port)) * h.keys[pairWords-1]
	for i := range p.A {
		sum += uint64(p.A[i])*h.keys[i] + uint64(p.B[i])*h.keys[len(p.A)+i]
	}
	return uint32(sum >> h.shift), uint32(sum>>16) | 1
}

// sequences are pairs that follow each other: ends count in the last word of an address, which an
// IPv4 address is, in the one that ends a /64 prefix of IPv6, or by port.
func (h *pairHash) sequences() (all []hashspread.Sequence) {
	for _, count := range []func(p *datapathPair, n uint32){
		func(p *datapathPair, n uint32) { p.A[3] = n },
		func(p *datapathPair, n uint32) { p.B[3] = n },
		func(p *datapathPair, n uint32) { p.A[3], p.B[3] = n, n },
		func(p *datapathPair, n uint32) { p.A[1] = n },
		func(p *datapathPair, n uint32) { p.B[1] = n },
	} {
		all = append(all, hashspread.Sequence{Set: func(n uint32) uint32 {
			var p datapathPair
			count(&p, inNetworkOrder(n))
			set, _ := h.place(&p)
			return set
		}})
	}
	for _, count := range []func(p *datapathPair, port uint16){
		func(p *datapathPair, port uint16) { p.A_port = port },
		func(p *datapathPair, port uint16) { p.B_port = port },
	} {
		all = append(all, hashspread.Sequence{Length: 1 << 16, Set: func(n uint32) uint32 {
			var p datapathPair
			count(&p, swapped(uint16(n)))
			set, _ := h.place(&p)
			return set
		}})
	}
	return all
}

// inNetworkOrder is a number as a word of an address in a pair.
func inNetworkOrder(n uint32) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return binary.NativeEndian.Uint32(b[:])
}

// set sets the hash in a program.
func (h *pairHash) set(keys, shift *ebpf.VariableSpec) error {
	if err := keys.Set(h.keys); err != nil {
		return err
	}
	return shift.Set(h.shift)
}
