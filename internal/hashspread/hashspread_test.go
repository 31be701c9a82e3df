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
			for i, s := range sequences {
				if !s.spreads(make([]uint8, sets), slots, int(sets)*2, 0) {
					t.Errorf("%d sets: the keys %x are bad for sequence %d", sets, keys, i)
				}
			}
		}
	}
}

// TestOverflows checks the count of inputs that find their set full, and that a sequence begins again
// after its last input.
func TestOverflows(t *testing.T) {
	used := []uint8{9, 9}
	parity := Sequence{Set: func(n uint32) uint32 { return n & 1 }}
	if n := parity.overflows(used, 3, 10, 7); n != 4 {
		t.Errorf("got %d, want 4", n)
	}
	short := Sequence{Length: 4, Set: func(n uint32) uint32 { return n }}
	if n := short.overflows(make([]uint8, 4), 1, 4, 3); n != 0 {
		t.Errorf("a short sequence overflows %d times", n)
	}
	bad := Sequence{Set: func(uint32) uint32 { return 0 }}
	if bad.spreads(used, 8, 1000, 0) {
		t.Error("one set for all is even")
	}
	if bad.Length = 8; !bad.spreads(used, 8, 1000, 3) {
		t.Error("a short sequence is too long")
	}
}
