package sni

import (
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestQUICClockThatIsSet checks that setting the wall clock neither ends a flow nor keeps one
// alive.
func TestQUICClockThatIsSet(t *testing.T) {
	for _, by := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		s, upstream := plainServer(t, Config{QUICIdleTimeout: 2 * time.Hour})
		newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0")).confirm()
		for _, later := range []time.Duration{time.Hour, 3 * time.Hour} {
			now := nettest.SetClock(time.Now().Add(later), by)
			for _, sh := range s.quic.shards {
				sh.sweep(now)
			}
			if n, over := s.Stats().QUIC.Flows, later > 2*time.Hour; (n == 0) != over {
				t.Errorf("clock set by %v: %d flows after %v", by, n, later)
			}
		}
	}
}
