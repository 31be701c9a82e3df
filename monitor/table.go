package monitor

import "iter"

// table is a map that forgets: what was not touched for longest when it is
// full, and what has been idle. Times are nanoseconds of the packets' clock.
type table[K comparable, V any] struct {
	entries map[K]*entry[K, V]
	ring    entry[K, V] // ring.next was touched last, ring.prev longest ago
	limit   int
	evicted uint64 // for want of room
	expired uint64
	forget  func(*entry[K, V], Reason) // called after an entry has gone; may be nil
}

type entry[K comparable, V any] struct {
	key        K
	value      V
	seen       int64
	prev, next *entry[K, V]
}

// touchAfter is how much later an entry must be seen again to be moved to the
// front: moving it for every packet would cost more than the packet.
const touchAfter = int64(250e6)

func (t *table[K, V]) init(limit int, forget func(*entry[K, V], Reason)) {
	t.entries = make(map[K]*entry[K, V])
	t.ring.prev, t.ring.next = &t.ring, &t.ring
	t.limit, t.forget = max(limit, 1), forget
}

func (t *table[K, V]) len() int { return len(t.entries) }

// peek finds an entry and leaves it where it is.
func (t *table[K, V]) peek(key K) *entry[K, V] { return t.entries[key] }

// get finds an entry and touches it.
func (t *table[K, V]) get(key K, now int64) *entry[K, V] {
	e := t.entries[key]
	if e != nil {
		t.touch(e, now)
	}
	return e
}

func (t *table[K, V]) touch(e *entry[K, V], now int64) {
	if now-e.seen < touchAfter {
		return
	}
	e.seen = now
	e.unlink()
	t.front(e)
}

// put adds an entry that is not there.
func (t *table[K, V]) put(key K, value V, now int64) *entry[K, V] {
	for len(t.entries) >= t.limit {
		t.evicted++
		t.drop(t.ring.prev, Evicted)
	}
	e := &entry[K, V]{key: key, value: value, seen: now}
	t.entries[key] = e
	t.front(e)
	return e
}

// remove takes an entry out without a word.
func (t *table[K, V]) remove(key K) {
	if e := t.entries[key]; e != nil {
		delete(t.entries, key)
		e.unlink()
	}
}

// drop takes an entry out and says so.
func (t *table[K, V]) drop(e *entry[K, V], why Reason) {
	delete(t.entries, e.key)
	e.unlink()
	if t.forget != nil {
		t.forget(e, why)
	}
}

// expire drops what was last seen before a time.
func (t *table[K, V]) expire(before int64) {
	for e := t.ring.prev; e != &t.ring && e.seen < before; e = t.ring.prev {
		t.expired++
		t.drop(e, Idle)
	}
}

// all yields the entries, the latest first. The one that is yielded may be
// removed.
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

func (t *table[K, V]) front(e *entry[K, V]) {
	e.prev, e.next = &t.ring, t.ring.next
	e.next.prev, t.ring.next = e, e
}

func (e *entry[K, V]) unlink() {
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
}
