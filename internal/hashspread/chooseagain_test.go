package hashspread

import "testing"

// TestChooseAgain checks that keys which put all inputs into one set are not used.
func TestChooseAgain(t *testing.T) {
	numbers := []uint64{0, 1 << 60} // all in set 0; all sets in turn
	random := func() (n uint64) { n, numbers = numbers[0], numbers[1:]; return n }
	var keys [1]uint64
	choose(keys[:], 16, 8, 32, []Sequence{{Set: func(n uint32) uint32 { return uint32(uint64(n) * keys[0] >> 60) }}}, random)
	if keys[0] != 1<<60 {
		t.Errorf("the key is %x", keys[0])
	}
}
