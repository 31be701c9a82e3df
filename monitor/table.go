package monitor

import "iter"

// table is a bounded map. When it is full, the entry that was touched longest ago
// makes room. Idle entries expire. Times are those of the packets' clock.
type table[K comparable, V any] struct {
	entries map[K]*entry[K, V]
	latest  *entry[K, V] // that peek, get or put has returned last: often it is asked for again; nil: none
	ring    entry[K, V]  // ring.next was touched last, ring.prev longest ago
	limit   int
	evicted uint64 // entries that have made room
	expired uint64
	dropped func(*entry[K, V], Reason) // called after an entry was evicted or has expired; may be nil
}

type entry[K comparable, V any] struct {
	key        K
	value      V
	seen       int64
	prev, next *entry[K, V]
}

// touchAfter is the time, in nanoseconds, after which an entry that is seen again
// is moved to the front. Moving it for every packet would cost more than the rest.
const touchAfter = int64(250e6)

func (t *table[K, V]) init(limit int, dropped func(*entry[K, V], Reason)) {
	t.entries = make(map[K]*entry[K, V])
	t.ring.prev, t.ring.next = &t.ring, &t.ring
	t.limit, t.dropped = max(limit, 1), dropped
}

func (t *table[K, V]) len() int { return len(t.entries) }

// peek returns an entry, or nil.
func (t *table[K, V]) peek(key K) *entry[K, V] {
	if e := t.latest; e != nil && e.key == key {
		return e
	}
	e := t.entries[key]
	if e != nil {
		t.latest = e
	}
	return e
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
	e.unlink()
	t.front(e)
}

// put adds an entry for a key that has none.
func (t *table[K, V]) put(key K, value V, now int64) *entry[K, V] {
	for len(t.entries) >= t.limit {
		t.evicted++
		t.drop(t.ring.prev, Evicted)
	}
	e := &entry[K, V]{key: key, value: value, seen: now}
	t.entries[key], t.latest = e, e
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

// unlink removes an entry from the map, and from the ring.
func (t *table[K, V]) unlink(e *entry[K, V]) {
	delete(t.entries, e.key)
	e.unlink()
	if t.latest == e {
		t.latest = nil
	}
}

func (e *entry[K, V]) unlink() {
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
}
