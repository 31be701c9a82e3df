package cid

import (
	"hash/maphash"
	"math/bits"
)

// table is a hash table of IDs of Len bytes. It takes less memory than a map, because it is
// fuller. Most look-ups read one bucket.
type table struct {
	buckets []bucket
	taken   int // slots with an ID
	used    int // slots that are not free
}

// bucket is two lines of the processor's cache, which are next to each other.
type bucket struct {
	marks uint64 // a byte for each slot: free, removed, or isTaken with bits of the hash
	slots [bucketSize]slot
}

// slot is an ID and its entry.
type slot struct {
	id [Len]byte
	entry
}

const bucketSize = 5

// Marks of a slot.
const (
	free    = 0x00 // a look-up ends in a bucket with a free slot
	removed = 0x01 // the slot has no ID, but a look-up goes on
	isTaken = 0x80
)

// Words with a byte for each slot of a bucket.
const (
	eachOne  = 0x0101010101
	eachHigh = 0x8080808080
)

// zeroes returns a word with the high bit of the lowest byte that is zero in w, and perhaps of
// bytes above it.
func zeroes(w uint64) uint64 { return (w - eachOne) & ^w & eachHigh }

// lowest returns the index of the lowest byte whose high bit is set.
func lowest(w uint64) int { return bits.TrailingZeros64(w) / 8 }

// mark returns the mark of a slot that has an ID with the hash h.
func mark(h uint64) byte { return isTaken | byte(h>>8) }

// first returns the bucket in which the look-up of an ID with the hash h begins.
func (t *table) first(h uint64) int { return int(h >> 32 * uint64(len(t.buckets)) >> 32) }

// next returns the bucket after another.
func (t *table) next(i int) int {
	if i++; i < len(t.buckets) {
		return i
	}
	return 0
}

// find returns the bucket and the slot of an ID with the hash h, or nil.
func (t *table) find(h uint64, id *[Len]byte) (*bucket, int) {
	if t.taken == 0 {
		return nil, 0
	}
	wanted := uint64(mark(h)) * eachOne
	for i := t.first(h); ; i = t.next(i) {
		b := &t.buckets[i]
		for m := zeroes(b.marks ^ wanted); m != 0; m &= m - 1 {
			if at := lowest(m); b.slots[at].id == *id {
				return b, at
			}
		}
		if zeroes(b.marks) != 0 {
			return nil, 0
		}
	}
}

// set stores the entry of an ID with the hash h, which was made with seed.
func (t *table) set(seed maphash.Seed, h uint64, id *[Len]byte, e entry) {
	if b, at := t.find(h, id); b != nil {
		b.slots[at].entry = e
		return
	}
	if t.used >= len(t.buckets)*bucketSize*7/8 {
		t.resize(seed)
	}
	t.add(h, &slot{*id, e})
}

// add takes a slot for an ID that is not in the table. There is a free one.
func (t *table) add(h uint64, s *slot) {
	i := t.first(h)
	for t.buckets[i].marks&eachHigh == eachHigh {
		i = t.next(i)
	}
	b := &t.buckets[i]
	at := lowest(^b.marks & eachHigh)
	if b.mark(at, mark(h)) == free {
		t.used++
	}
	t.taken++
	b.slots[at] = *s
}

// mark sets the mark of a slot, and returns what it was.
func (b *bucket) mark(at int, to byte) (was byte) {
	was = byte(b.marks >> (8 * at))
	b.marks ^= uint64(was^to) << (8 * at)
	return was
}

// remove makes a slot with an ID available.
func (t *table) remove(b *bucket, at int) {
	t.taken--
	b.slots[at] = slot{}
	if zeroes(b.marks) == 0 { // look-ups have gone on after this bucket
		b.mark(at, removed)
		return
	}
	b.mark(at, free)
	t.used--
}

// resize moves the IDs to new slots, of which they take three quarters. So a table without free
// slots, of which 7/8 are in use, grows by a sixth.
func (t *table) resize(seed maphash.Seed) {
	old := *t
	*t = table{buckets: make([]bucket, t.taken*4/3/bucketSize+1)}
	for i := range old.buckets {
		b := &old.buckets[i]
		for m := b.marks & eachHigh; m != 0; m &= m - 1 {
			s := &b.slots[lowest(m)]
			t.add(maphash.Bytes(seed, s.id[:]), s)
		}
	}
}

// expire removes the IDs for which expired returns true, and returns how many there were. It
// frees the memory of a table that is less than half full then.
func (t *table) expire(seed maphash.Seed, expired func(*entry) bool) int {
	n := 0
	for i := range t.buckets {
		b := &t.buckets[i]
		for m := b.marks & eachHigh; m != 0; m &= m - 1 {
			if at := lowest(m); expired(&b.slots[at].entry) {
				t.remove(b, at)
				n++
			}
		}
	}
	switch {
	case t.taken == 0:
		*t = table{}
	case t.taken < len(t.buckets)*bucketSize/2:
		t.resize(seed)
	}
	return n
}
