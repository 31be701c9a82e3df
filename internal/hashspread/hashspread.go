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
)

// Sequence is inputs that follow each other.
type Sequence struct {
	Length int                         // how many different inputs there are; 0: no limit
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
		if even(used, slots, count, sequences) {
			return
		}
	}
}

// even says whether each sequence spreads well.
func even(used []uint8, slots, count int, sequences []Sequence) bool {
	for _, s := range sequences {
		n := min(count, most)
		if s.Length > 0 {
			n = min(n, s.Length)
		}
		if overflows(used, slots, n, s.Set)*100 > n {
			return false
		}
	}
	return true
}

// overflows returns how many of the first inputs of a sequence find their set full.
func overflows(used []uint8, slots, count int, set func(n uint32) uint32) (n int) {
	clear(used)
	for i := range uint32(count) {
		s := set(i)
		if int(used[s]) == slots {
			n++
			continue
		}
		used[s]++
	}
	return n
}
