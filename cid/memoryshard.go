package cid

import (
	"hash/maphash"
	"sync"
)

// entry is what a shard stores about an ID.
type entry struct {
	leg     uint32 // index in the legTable
	low     uint32 // the low 32 bits of the counter; the leg has the others
	expires tick
}

// shard is a part of a [MemoryStore]. Its methods need mu, those that only read as a reader.
type shard struct {
	mu     sync.RWMutex
	table  table        // IDs of Len bytes
	others map[ID]entry // the others: IDs that clients have drawn
	_      [56]byte     // so that no two locks share a cache line, or a pair of them
}

// get returns the entry of an ID with the hash h.
func (sh *shard) get(h uint64, id ID) (entry, bool) {
	if id.n != Len {
		e, ok := sh.others[id]
		return e, ok
	}
	if b, at := sh.table.find(h, (*[Len]byte)(id.b[:])); b != nil {
		return b.slots[at].entry, true
	}
	return entry{}, false
}

// set stores an entry. seed is that of h.
func (sh *shard) set(seed maphash.Seed, h uint64, id ID, e entry) {
	if id.n == Len {
		sh.table.set(seed, h, (*[Len]byte)(id.b[:]), e)
		return
	}
	if sh.others == nil {
		sh.others = make(map[ID]entry)
	}
	sh.others[id] = e
}

// remove removes an ID that is in the shard.
func (sh *shard) remove(h uint64, id ID) {
	if id.n == Len {
		sh.table.remove(sh.table.find(h, (*[Len]byte)(id.b[:])))
		return
	}
	delete(sh.others, id)
}

// expire removes the entries for which expired returns true, and returns how many there were.
func (sh *shard) expire(seed maphash.Seed, expired func(*entry) bool) int {
	n := sh.table.expire(seed, expired)
	for id, e := range sh.others {
		if expired(&e) {
			delete(sh.others, id)
			n++
		}
	}
	return n
}
