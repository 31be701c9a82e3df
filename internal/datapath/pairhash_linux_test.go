package datapath

import "testing"

// TestPairHashSpreads checks that a full table has room for nearly all pairs that follow each other,
// with any keys, also from another number on than the keys are chosen by.
func TestPairHashSpreads(t *testing.T) {
	for flows, times := range map[int]int{1000: 100, 1 << 17: 2} {
		for range times {
			h := newPairHash(flows)
			used := make([]int, h.sets())
			full := 0
			for n := range uint32(flows) {
				p := datapathPair{}
				p.A[3], p.B[3] = inNetworkOrder(0xc0a80000+n), inNetworkOrder(0x0a000001)
				set, _ := h.place(&p)
				if used[set]++; used[set] > slotsEach {
					full++
				}
			}
			if full*50 > flows {
				t.Errorf("%d of %d flows have no room", full, flows)
			}
		}
	}
}

// BenchmarkPairHash measures the choice of keys for a table of the default size.
func BenchmarkPairHash(b *testing.B) {
	for range b.N {
		newPairHash(1 << 17)
	}
}
