package cid

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// storedLeg is the part of associations that the IDs of a leg have in common.
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
const legChunk = 256

// legTable stores each leg once, and counts the entries that refer to it. Whoever holds the
// lock of a shard may call at, without another lock, with the index in an entry of the shard:
// a leg does not change while entries refer to it.
type legTable struct {
	chunks atomic.Pointer[[]*[legChunk]legRecord] // replaced when one is added

	mu     sync.Mutex // guards the following, and the fields of legRecord except leg
	seed   maphash.Seed
	byHash map[uint64]uint32 // index of the first leg with a hash
	unused uint32            // the first leg that can be used again, or noLeg
	made   uint32            // legs that have ever been used
}

// legRecord is a leg in a legTable.
type legRecord struct {
	leg  storedLeg
	refs uint32 // entries that refer to the leg
	next uint32 // the next leg with the same hash, or the next unused one, or noLeg
}

const noLeg = ^uint32(0)

func (t *legTable) init() {
	t.chunks.Store(new([]*[legChunk]legRecord))
	t.seed = maphash.MakeSeed()
	t.byHash = make(map[uint64]uint32)
	t.unused = noLeg
}

// at returns the leg with an index.
func (t *legTable) at(i uint32) *storedLeg { return &t.record(i).leg }

func (t *legTable) record(i uint32) *legRecord {
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
	for i := first; i != noLeg; i = t.record(i).next {
		if r := t.record(i); r.leg == l {
			r.refs++
			return i
		}
	}
	i := t.takeLocked()
	*t.record(i) = legRecord{leg: l, refs: 1, next: first}
	t.byHash[h] = i
	return i
}

// takeLocked returns the index of a leg that is not used.
func (t *legTable) takeLocked() uint32 {
	if i := t.unused; i != noLeg {
		t.unused = t.record(i).next
		return i
	}
	if t.made%legChunk == 0 {
		chunks := append(*t.chunks.Load(), new([legChunk]legRecord))
		t.chunks.Store(&chunks)
	}
	t.made++
	return t.made - 1
}

// release takes an entry from a leg. The leg of no entry can be used for another one.
func (t *legTable) release(i uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.record(i)
	if r.refs--; r.refs > 0 {
		return
	}
	t.unlinkLocked(maphash.Comparable(t.seed, r.leg), i)
	r.next, t.unused = t.unused, i
}

// unlinkLocked removes a leg from those with the hash h.
func (t *legTable) unlinkLocked(h uint64, i uint32) {
	next := t.record(i).next
	first := t.byHash[h]
	switch {
	case first != i:
		before := t.record(first)
		for before.next != i {
			before = t.record(before.next)
		}
		before.next = next
	case next == noLeg:
		delete(t.byHash, h)
	default:
		t.byHash[h] = next
	}
}
