package splice

import (
	"net/netip"
	"testing"
)

// TestNewKeysSpread checks that the table has room for the flows of one client, whose ports follow each
// other, and of clients whose addresses do, with any keys.
func TestNewKeysSpread(t *testing.T) {
	const pairs = 8192
	for range 5 {
		f := &flowTable{sets: make([]spliceFlowSet, tableSets(pairs)), keys: newKeys(pairs)}
		for name, flow := range map[string]func(n int) tuple{
			"ports": func(n int) tuple {
				return tuple{netip.AddrPortFrom(addr4(7), uint16(20_000+n)), netip.AddrPortFrom(addr4(9), 443)}
			},
			"addresses": func(n int) tuple {
				return tuple{netip.AddrPortFrom(addr4(uint32(0xc0a80000+n)), 50_000), netip.AddrPortFrom(addr4(9), 443)}
			},
		} {
			used, full := make([]int, len(f.sets)), 0
			for n := range 2 * pairs {
				set := f.hash(flow(n)) & uint32(len(f.sets)-1)
				if used[set]++; used[set] > setSlots {
					full++
				}
			}
			if full*50 > 2*pairs {
				t.Errorf("%s: %d of %d flows have no room", name, full, 2*pairs)
			}
		}
	}
}
