package hashspread

import "testing"

// TestChooseAgain checks that keys are not used which put all inputs into one set, from the first
// input on or from a later one.
func TestChooseAgain(t *testing.T) {
	const good = 1 << 60 // all sets in turn
	for name, numbers := range map[string][]uint64{
		"from the first": {0, good},
		"from a later":   {7, 1000, good}, // the second number is a start
	} {
		random := func() uint64 {
			if len(numbers) == 0 {
				return 5 // the starts for the good key
			}
			n := numbers[0]
			numbers = numbers[1:]
			return n
		}
		var keys [1]uint64
		sequence := Sequence{Set: func(n uint32) uint32 {
			if keys[0] == 7 {
				return min(n, 100) % 16
			}
			return uint32(uint64(n) * keys[0] >> 60)
		}}
		choose(keys[:], 16, 8, 32, []Sequence{sequence}, random)
		if keys[0] != good {
			t.Errorf("%s: the key is %x", name, keys[0])
		}
	}
}
