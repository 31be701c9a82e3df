package monitor

import "iter"

// table is a bounded map. When it is full, the entry that was touched longest ago
// makes room. Idle entries expire. Times are those of the packets' clock.
//
// The entries are in a hash table with a list for each bucket, which Go's map would be as well if
// it did not keep a second copy of each key. It grows by one bucket at a time (linear hashing), so
// that no packet waits until all entries have moved. The hash has a random seed: strangers, who
// choose most keys, cannot choose the bucket.
type table[K comparable, V any] struct {
	hash    func(K) uint32 // nil before init: that of anyKey
	buckets []*entry[K, V]
	mask    uint32       // the least 2^n-1 that is an index of a bucket or more
	count   int          // of entries
	changes uint64       // how often an entry was added or removed
	latest  *entry[K, V] // that find, get or put has returned last: often it is asked for again; nil: none
	ring    entry[K, V]  // ring.next was touched last, ring.prev longest ago
	cursor  *entry[K, V] // of listen: an entry, or &ring; if its entry is unlinked, the one behind it
	limit   int
	evicted uint64 // entries that have made room
	expired uint64
	dropped func(*entry[K, V], Reason) // called after an entry was evicted or has expired; may be nil
}

type entry[K comparable, V any] struct {
	chained    *entry[K, V] // the next entry in the bucket
	prev, next *entry[K, V]
	seen       int64
	hash       uint32
	key        K
	value      V
}

// touchAfter is the time, in nanoseconds, after which an entry that is seen again
// is moved to the front. Moving it for every packet would cost more than the rest.
const touchAfter = int64(250e6)

func (t *table[K, V]) init(limit int, dropped func(*entry[K, V], Reason)) {
	if t.hash == nil {
		t.hash = anyKey[K]()
	}
	t.buckets, t.mask = make([]*entry[K, V], 1), 0
	t.ring.prev, t.ring.next, t.cursor = &t.ring, &t.ring, &t.ring
	t.limit, t.dropped = max(limit, 1), dropped
}

func (t *table[K, V]) len() int { return t.count }

// bucketOf returns the index of the bucket for a hash. The last buckets of a power of two may not
// be there yet: then it is the bucket that will be split.
func (t *table[K, V]) bucketOf(hash uint32) uint32 {
	i := hash & t.mask
	if i >= uint32(len(t.buckets)) {
		i &= t.mask >> 1
	}
	return i
}

// grow adds a bucket, and moves those entries there that belong to it.
func (t *table[K, V]) grow() {
	added := uint32(len(t.buckets))
	if added > t.mask {
		t.mask = t.mask<<1 | 1
	}
	t.buckets = append(t.buckets, nil)
	at := &t.buckets[added&(t.mask>>1)]
	for e := *at; e != nil; e = *at {
		if e.hash&t.mask != added {
			at = &e.chained
			continue
		}
		*at = e.chained
		e.chained, t.buckets[added] = t.buckets[added], e
	}
}

// peek returns an entry, or nil.
func (t *table[K, V]) peek(key K) *entry[K, V] { return t.find(&key, t.hash(key)) }

// find is peek for a key whose hash is known.
func (t *table[K, V]) find(key *K, hash uint32) *entry[K, V] {
	if e := t.latest; e != nil && e.hash == hash && e.key == *key {
		return e
	}
	for e := t.buckets[t.bucketOf(hash)]; e != nil; e = e.chained {
		if e.hash == hash && e.key == *key {
			t.latest = e
			return e
		}
	}
	return nil
}

// get returns an entry and touches it, or nil.
func (t *table[K, V]) get(key K, now int64) *entry[K, V] {
	e := t.peek(key)
	if e != nil {
		t.touch(e, now)
	}
	return e
}

// touch marks an entry as seen.
func (t *table[K, V]) touch(e *entry[K, V], now int64) {
	if now-e.seen < touchAfter {
		return
	}
	e.seen = now
	t.pull(e)
	t.front(e)
}

// put adds an entry for a key that has none.
func (t *table[K, V]) put(key K, value V, now int64) *entry[K, V] {
	for t.count >= t.limit {
		t.evicted++
		t.drop(t.ring.prev, Evicted)
	}
	if t.count >= len(t.buckets) {
		t.grow()
	}
	e := &entry[K, V]{key: key, value: value, seen: now, hash: t.hash(key)}
	at := &t.buckets[t.bucketOf(e.hash)]
	e.chained, *at, t.latest = *at, e, e
	t.count++
	t.changes++
	t.front(e)
	return e
}

// remove removes an entry without calling dropped.
func (t *table[K, V]) remove(key K) {
	if e := t.peek(key); e != nil {
		t.unlink(e)
	}
}

// drop removes an entry and calls dropped.
func (t *table[K, V]) drop(e *entry[K, V], why Reason) {
	t.unlink(e)
	if t.dropped != nil {
		t.dropped(e, why)
	}
}

// expire drops the entries that were last seen before a time.
func (t *table[K, V]) expire(before int64) {
	for e := t.ring.prev; e != &t.ring && e.seen < before; e = t.ring.prev {
		t.expired++
		t.drop(e, Idle)
	}
}

// all yields the entries, the one touched last first. The loop's body may remove
// the entry that it gets.
func (t *table[K, V]) all() iter.Seq[*entry[K, V]] {
	return func(yield func(*entry[K, V]) bool) {
		for e := t.ring.next; e != &t.ring; {
			next := e.next
			if !yield(e) {
				return
			}
			e = next
		}
	}
}

// front links an entry as the first one.
func (t *table[K, V]) front(e *entry[K, V]) {
	e.prev, e.next = &t.ring, t.ring.next
	e.next.prev, t.ring.next = e, e
}

// unlink removes an entry from its bucket, and from the ring.
func (t *table[K, V]) unlink(e *entry[K, V]) {
	at := &t.buckets[t.bucketOf(e.hash)]
	for *at != e {
		at = &(*at).chained
	}
	*at, e.chained = e.chained, nil
	t.count--
	t.changes++
	t.pull(e)
	if t.latest == e {
		t.latest = nil
	}
}

// pull takes an entry out of the ring.
func (t *table[K, V]) pull(e *entry[K, V]) {
	if t.cursor == e {
		t.cursor = e.next
	}
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
}

// appendFew appends to a list that has its first element in an array of its own, because it hardly ever
// has another one. list is nil at first.
func appendFew[T any](list []T, first *[1]T, v T) []T {
	if list == nil {
		list = first[:0]
	}
	if list = append(list, v); len(list) == 2 {
		clear(first[:]) // the list has another array now
	}
	return list
}
