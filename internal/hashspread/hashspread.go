// Package hashspread makes and checks the secret keys of linear hashes. Such a hash is fast, and random inputs
// are spread well by all keys. But real addresses and ports follow each other, and some keys put many
// of these into few sets of a table.
package hashspread

import (
	"crypto/rand"
	"encoding/binary"
)

const (
	// tries is how often keys are chosen at most.
	tries = 100
	// most is how many inputs of a sequence are tried at most. Larger tables are checked for their
	// first part only.
	most = 1 << 18
	// starts is from how many inputs on a sequence is tried. The first one is input 0. The others are
	// random: a sequence that starts elsewhere is moved over the sets, so that inputs which two sets
	// share may come into one.
	starts = 4
)

// Sequence is inputs that follow each other.
type Sequence struct {
	Length int                         // how many different inputs there are; 0: all numbers
	Set    func(n uint32) (set uint32) // of the n-th input, by the present keys
}

// Key returns a random number that nobody can guess.
func Key() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.NativeEndian.Uint64(b[:])
}

// Choose fills keys with random numbers of which each sequence spreads well over a table with so many
// sets, of so many slots each: if the table gets count inputs, at most one in a hundred finds its
// set full.
func Choose(keys []uint64, sets uint32, slots, count int, sequences []Sequence) {
	choose(keys, sets, slots, count, sequences, Key)
}

// choose is Choose with another source of numbers.
func choose(keys []uint64, sets uint32, slots, count int, sequences []Sequence, random func() uint64) {
	used := make([]uint8, sets)
	for range tries {
		for i := range keys {
			keys[i] = random()
		}
		if even(used, slots, count, sequences, random) {
			return
		}
	}
}

// even says whether each sequence spreads well from all starts.
func even(used []uint8, slots, count int, sequences []Sequence, random func() uint64) bool {
	for i := range starts {
		for _, s := range sequences {
			start := uint32(0)
			if i > 0 {
				start = uint32(random())
			}
			if !s.spreads(used, slots, count, start) {
				return false
			}
		}
	}
	return true
}

// spreads says whether so many inputs of a sequence spread well from a start on.
func (s *Sequence) spreads(used []uint8, slots, count int, start uint32) bool {
	n := min(count, most)
	if s.Length > 0 {
		n = min(n, s.Length)
		start %= uint32(s.Length)
	}
	return s.overflows(used, slots, n, start)*100 <= n
}

// overflows returns how many of count inputs from a start on find their set full.
func (s *Sequence) overflows(used []uint8, slots, count int, start uint32) (n int) {
	clear(used)
	for i := range uint32(count) {
		input := start + i
		if s.Length > 0 {
			input %= uint32(s.Length)
		}
		set := s.Set(input)
		if int(used[set]) == slots {
			n++
			continue
		}
		used[set]++
	}
	return n
}
