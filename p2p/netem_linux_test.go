package p2p

import (
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/quicway/quicway/internal/test/nettest"
)

// impairments are those of real networks. Delays are in microseconds, the others in percent.
var impairments = map[string]netlink.NetemQdiscAttrs{
	"delay":       {Latency: 80_000},
	"jitter":      {Latency: 30_000, Jitter: 15_000},
	"loss":        {Latency: 5_000, Loss: 3},
	"reordering":  {Latency: 10_000, ReorderProb: 25, ReorderCorr: 50},
	"duplication": {Latency: 5_000, Duplicate: 10},
	"all":         {Latency: 20_000, Jitter: 5_000, Loss: 1, ReorderProb: 5, Duplicate: 2},
}

// TestKernelImpaired checks that a connection gets a direct path, falls back to the
// relay, and gets a direct path again, and that all data arrives, on networks that
// delay, lose, reorder or duplicate packets.
func TestKernelImpaired(t *testing.T) {
	for name, how := range impairments {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newKernelLab(t, nettest.PortRestricted, nettest.PortRestricted, nil)
			for _, link := range []string{"relay", "site0", "site1"} {
				l.core.Impair(link, how)
			}
			const size = 128 << 10
			a, b := l.connect()
			l.becomes(Direct, a, b)
			l.exchange(a, b, size)
			l.cut()
			l.exchange(a, b, size)
			l.becomes(Relayed, a, b)
			l.core.Mend()
			l.becomes(Direct, a, b)
			l.exchange(a, b, size)
		})
	}
}
