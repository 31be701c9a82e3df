package p2p

import (
	"testing"
	"time"
)

// TestLegOutlivesShortTTL checks that a leg with a TTL below a minute is refreshed in
// time, also on an old endpoint, and while all packets take the direct path.
func TestLegOutlivesShortTTL(t *testing.T) {
	runLab(t, func(l *lab) { // the relay's TTL is 20 s
		silent := func(c *Config) { c.KeepAlive = -1; c.Policy = PreferDirect }
		left, right := l.host(silent), l.host(silent)
		for range 2 {
			a, b := l.connect(left, right)
			l.until(Direct, a, b)
			for range 8 {
				time.Sleep(10 * time.Second)
				l.exchange(a, b, 1000)
				if s := l.server.Stats(); s.Legs != 2 || s.Expired != 0 {
					l.Errorf("%d legs, %d expired, want 2 and none", s.Legs, s.Expired)
				}
			}
			a.CloseWithError(0, "")
			b.CloseWithError(0, "")
			time.Sleep(30 * time.Second) // the legs are given back
		}
	})
}
