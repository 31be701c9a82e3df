package cid

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// storedLeg is the part of associations that the IDs of a leg have in common: 32 bytes, so that
// it is in one line of the processor's cache.
type storedLeg struct {
	owner   Owner
	session uint64
	high    uint32 // the high 32 bits of the counters
	leg     uint8
}

func legOf(a *Association) storedLeg {
	return storedLeg{owner: a.Owner, session: a.Session, high: uint32(a.Counter >> 32), leg: a.Leg}
}

// association returns the association of an ID, by the low 32 bits of its counter.
func (l *storedLeg) association(low uint32) Association {
	return Association{Owner: l.owner, Session: l.session, Counter: uint64(l.high)<<32 | uint64(low), Leg: l.leg}
}

// legChunk is how many legs are allocated at once.
const legChunk = 1024

// legTable stores each leg once, and counts the entries that refer to it. Whoever holds the
// lock of a shard may call at, without another lock, with the index in an entry of the shard:
// a leg does not change while entries refer to it.
type legTable struct {
	chunks atomic.Pointer[[]*[legChunk]storedLeg] // replaced when one is added

	mu     sync.Mutex // guards the following
	seed   maphash.Seed
	links  []legLink         // of each leg in chunks
	byHash map[uint64]uint32 // index of the first leg with a hash
	unused uint32            // the first leg that can be used again, or noLeg
}

// legLink says where a leg belongs.
type legLink struct {
	refs uint32 // entries that refer to the leg
	next uint32 // the next leg with the same hash, or the next unused one, or noLeg
}

const noLeg = ^uint32(0)

func (t *legTable) init() {
	t.chunks.Store(new([]*[legChunk]storedLeg))
	t.seed = maphash.MakeSeed()
	t.byHash = make(map[uint64]uint32)
	t.unused = noLeg
}

// at returns the leg with an index.
func (t *legTable) at(i uint32) *storedLeg {
	return &(*t.chunks.Load())[i/legChunk][i%legChunk]
}

// acquire returns the index of a leg for one more entry.
func (t *legTable) acquire(l storedLeg) uint32 {
	h := maphash.Comparable(t.seed, l)
	t.mu.Lock()
	defer t.mu.Unlock()
	first, ok := t.byHash[h]
	if !ok {
		first = noLeg
	}
	for i := first; i != noLeg; i = t.links[i].next {
		if *t.at(i) == l {
			t.links[i].refs++
			return i
		}
	}
	i := t.takeLocked()
	*t.at(i), t.links[i] = l, legLink{refs: 1, next: first}
	t.byHash[h] = i
	return i
}

// takeLocked returns the index of a leg that is not used.
func (t *legTable) takeLocked() uint32 {
	if i := t.unused; i != noLeg {
		t.unused = t.links[i].next
		return i
	}
	i := uint32(len(t.links))
	if i%legChunk == 0 {
		chunks := append(*t.chunks.Load(), new([legChunk]storedLeg))
		t.chunks.Store(&chunks)
	}
	t.links = append(t.links, legLink{})
	return i
}

// release takes an entry from a leg. The leg of no entry can be used for another one.
func (t *legTable) release(i uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	link := &t.links[i]
	if link.refs--; link.refs > 0 {
		return
	}
	t.unlinkLocked(maphash.Comparable(t.seed, *t.at(i)), i)
	link.next, t.unused = t.unused, i
}

// unlinkLocked removes a leg from those with the hash h.
func (t *legTable) unlinkLocked(h uint64, i uint32) {
	next := t.links[i].next
	first := t.byHash[h]
	switch {
	case first != i:
		before := first
		for t.links[before].next != i {
			before = t.links[before].next
		}
		t.links[before].next = next
	case next == noLeg:
		delete(t.byHash, h)
	default:
		t.byHash[h] = next
	}
}
