package wire

import "testing"

// TestNoAllocations checks that parsing headers does not allocate.
func TestNoAllocations(t *testing.T) {
	all := flights(t)
	if n := testing.AllocsPerRun(10, func() {
		for _, d := range all {
			for _, err := range Packets(d.data, d.idLen) {
				if err != nil {
					t.Fatal(err)
				}
			}
			Run(d.data, 100, d.idLen)
		}
	}); n != 0 {
		t.Errorf("%v allocations for %d datagrams", n, len(all))
	}
}
