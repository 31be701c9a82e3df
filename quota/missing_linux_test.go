package quota

import (
	"net/netip"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/xdptest"
	"github.com/quicway/quicway/xdp"
)

// TestMissingAllowedExpires checks that the kernel drops again when the entry of the allow list
// has expired that it had no room for.
func TestMissingAllowedExpires(t *testing.T) {
	program := xdptest.Load(t, &xdp.Config{Stages: []xdp.Stage{xdp.QuotaStage}, Prefixes: 1})
	c := mustNew(t, &Config{XDP: program})
	t.Cleanup(func() { c.Close() })
	kernel := c.enforcement.enforcer.(*kernelEnforcer)
	missing := func() int {
		kernel.mu.Lock()
		defer kernel.mu.Unlock()
		return len(kernel.missing)
	}
	for _, entry := range []struct {
		prefix  string
		ttl     time.Duration
		missing int
	}{{"192.0.2.0/24", 0, 0}, {"198.51.100.0/24", time.Hour, 1}, {"198.51.100.0/24", 10 * time.Millisecond, 1}} {
		if err := c.Allow(netip.MustParsePrefix(entry.prefix), entry.ttl, ""); err != nil {
			t.Fatal(err)
		}
		if got := missing(); got != entry.missing {
			t.Fatalf("%s: %d are missing, want %d", entry.prefix, got, entry.missing)
		}
	}
	nettest.Eventually(t, "nothing is missing", func() bool { return missing() == 0 })
}
