package relay

import (
	"fmt"
	"net/netip"
	"testing"
)

// TestRelayBehindSNAT checks that the relay warns once if all clients have the same private
// address, and never otherwise.
func TestRelayBehindSNAT(t *testing.T) {
	for name, test := range map[string]struct {
		addr func(i int) string
		said int
	}{
		"SNAT":            {func(i int) string { return fmt.Sprintf("172.17.0.1:%d", 1000+i) }, 1},
		"one client":      {func(int) string { return "172.17.0.1:1000" }, 0},
		"one public":      {func(i int) string { return fmt.Sprintf("203.0.113.1:%d", 1000+i) }, 0},
		"local network":   {func(i int) string { return fmt.Sprintf("192.168.1.%d:1000", 2+i) }, 0},
		"loopback":        {func(i int) string { return fmt.Sprintf("127.0.0.1:%d", 1000+i) }, 0},
		"SNAT of IPv6":    {func(i int) string { return fmt.Sprintf("[fd00::1]:%d", 1000+i) }, 1},
		"others, not all": {func(i int) string { return fmt.Sprintf("172.17.0.%d:1000", 1+i/3) }, 0},
	} {
		var s sameSource
		said := 0
		for i := range 20 {
			if s.note(netip.MustParseAddrPort(test.addr(i))) {
				said++
			}
		}
		if said != test.said {
			t.Errorf("%s: %d warnings, want %d", name, said, test.said)
		}
	}
}
