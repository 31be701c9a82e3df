package datapath

import "testing"

// TestPairHashSpreads checks that full tables have room for nearly all pairs that follow each other,
// also from another number on than those which the keys are chosen by. A table with less room is rare,
// one in ten thousand, but possible: the keys are tried with a few starts only.
func TestPairHashSpreads(t *testing.T) {
	for flows, tables := range map[int]int{1000: 100, 1 << 17: 2} {
		var bad []int
		for range tables {
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
				bad = append(bad, full)
			}
		}
		if len(bad)*50 > tables {
			t.Errorf("%d of %d tables of %d flows have no room for as many: %d", len(bad), tables, flows, bad)
		}
	}
}

// BenchmarkPairHash measures the choice of keys for a table of the default size.
func BenchmarkPairHash(b *testing.B) {
	for range b.N {
		newPairHash(1 << 17)
	}
}
