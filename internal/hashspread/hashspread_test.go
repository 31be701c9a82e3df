package hashspread

import "testing"

// TestChoose checks that keys with which inputs overflow a set are not used, at several sizes.
func TestChoose(t *testing.T) {
	const slots = 8
	for _, bits := range []int{4, 9, 13} {
		sets := uint32(1) << bits
		var keys [2]uint64
		step := func(key uint64) func(uint32) uint32 {
			return func(n uint32) uint32 { return uint32(uint64(n) << 16 * key >> (64 - bits)) }
		}
		sequences := []Sequence{
			{0, func(n uint32) uint32 { return step(keys[0])(n) }},
			{100, func(n uint32) uint32 { return step(keys[1])(n) }},
		}
		for range 20 {
			Choose(keys[:], sets, slots, int(sets)*2, sequences)
			if !even(make([]uint8, sets), slots, int(sets)*2, sequences) {
				t.Errorf("%d sets: the keys %x are bad", sets, keys)
			}
		}
	}
}

// TestOverflows checks the count of inputs that find their set full.
func TestOverflows(t *testing.T) {
	used := []uint8{9, 9}
	if n := overflows(used, 3, 10, func(n uint32) uint32 { return n & 1 }); n != 4 {
		t.Errorf("got %d, want 4", n)
	}
	bad := []Sequence{{0, func(uint32) uint32 { return 0 }}}
	if even(used, 8, 1000, bad) {
		t.Error("one set for all is even")
	}
	if bad[0].Length = 8; !even(used, 8, 1000, bad) {
		t.Error("a short sequence is too long")
	}
}
