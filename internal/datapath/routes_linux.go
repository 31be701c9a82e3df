package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/hashspread"
)

// routeTable is the table of routes in the memory that the program reads: bpf/routes.h describes it,
// and says why the program needs no lock. The program's mutex guards it against other writers.
type routeTable struct {
	routeHash
	memory mappedMemory // of the map route_sets
	sets   []datapathRouteSet
}

// newRouteTable maps the memory of the table.
func newRouteTable(h routeHash, m *ebpf.Map) (routeTable, error) {
	memory, sets, err := mapMemory[datapathRouteSet](m)
	if err != nil {
		return routeTable{}, fmt.Errorf("map the memory of the routes: %w", err)
	}
	return routeTable{routeHash: h, memory: memory, sets: sets}, nil
}

func (t *routeTable) close() error {
	memory := t.memory
	*t = routeTable{}
	return memory.close()
}

// find returns the slot that has the tag of a place, or nil.
func (t *routeTable) find(p routePlace) *uint64 {
	for _, number := range [2]uint32{p.first, p.second} {
		set := &t.sets[number].Slot
		for i := range set {
			if uint32(set[i]>>32) == p.tag {
				return &set[i]
			}
		}
	}
	return nil
}

// put adds a slot at a place. It returns errTagTaken if another one has its tag, and ErrFull if there
// is no room.
func (t *routeTable) put(p routePlace, slot uint64) error {
	if old := t.find(p); old != nil {
		if *old == slot {
			return nil
		}
		return errTagTaken
	}
	for _, to := range []func(uint32) *uint64{t.free, t.makeRoom} {
		for _, number := range [2]uint32{p.first, p.second} {
			if s := to(number); s != nil {
				atomic.StoreUint64(s, slot)
				return nil
			}
		}
	}
	return ErrFull
}

// errTagTaken: the program could not tell the ID from another one.
var errTagTaken = errors.New("another route has the same hash")

// free returns a free slot of a set, or nil.
func (t *routeTable) free(number uint32) *uint64 {
	set := &t.sets[number].Slot
	for i := range set {
		if set[i] == 0 {
			return &set[i]
		}
	}
	return nil
}

// makeRoom moves a slot of a full set to its other set, and returns the place where it was. It
// returns nil if the other sets are full as well.
func (t *routeTable) makeRoom(number uint32) *uint64 {
	set := &t.sets[number].Slot
	for i := range set {
		if to := t.free(t.other(number, uint32(set[i]>>32))); to != nil {
			atomic.StoreUint64(to, set[i])
			atomic.StoreUint64(&set[i], 0)
			return &set[i]
		}
	}
	return nil
}

// remove removes a slot from a place. It is there twice if a process ended while it moved it.
func (t *routeTable) remove(p routePlace, slot uint64) {
	for _, number := range [2]uint32{p.first, p.second} {
		set := &t.sets[number].Slot
		for i := range set {
			if set[i] == slot {
				atomic.StoreUint64(&set[i], 0)
			}
		}
	}
}

// isAt says whether a slot of a set is where put has added it, and is no copy of such a one.
func (t *routeTable) isAt(number uint32, slot uint64, p routePlace) bool {
	if uint32(slot>>32) != p.tag || number != p.first && number != p.second {
		return false
	}
	if number == p.first {
		return true
	}
	for _, other := range t.sets[p.first].Slot {
		if other == slot {
			return false
		}
	}
	return true
}

// routeHash is the hash of connection IDs: find_route in bpf/routes.h.
type routeHash struct {
	keys routeKeys
	mask uint32 // the number of sets minus one
}

const (
	routeWords = cid.Len / 4                  // ROUTE_WORDS
	routeSlots = len(datapathRouteSet{}.Slot) // of a set
)

// routeKeys are the secret keys of the hash. Their zero value is no keys.
type routeKeys [2 * routeWords]uint64

// newRouteKeys returns random keys.
func newRouteKeys() (k routeKeys) {
	for i := range k {
		k[i] = hashspread.Key()
	}
	return k
}

// routeSets returns how many sets there are for so many IDs: a power of two, and at least one for five
// IDs, so that few IDs are in their second set.
func routeSets(ids int) uint32 { return 1 << bits.Len(uint((ids+4)/5-1)) }

// routePlace is where the route of an ID may be.
type routePlace struct{ first, second, tag uint32 }

func (h *routeHash) place(id cid.ID) routePlace {
	var place, sum uint64
	key := idKey(id)
	for i := range routeWords {
		word := uint64(binary.NativeEndian.Uint32(key[4*i:]))
		place += word * h.keys[i]
		sum += word * h.keys[routeWords+i]
	}
	p := routePlace{first: uint32(place>>32) & h.mask, tag: uint32(sum>>32) | 1}
	p.second = h.other(p.first, p.tag)
	return p
}

// other returns the other set of a slot with this tag.
func (h *routeHash) other(number, tag uint32) uint32 { return (number ^ tag) & h.mask }

// idKey returns an ID padded with zeros or cut to cid.Len bytes.
func idKey(id cid.ID) (key [cid.Len]byte) {
	var b [cid.MaxLen]byte
	copy(key[:], id.AppendTo(b[:0]))
	return key
}
