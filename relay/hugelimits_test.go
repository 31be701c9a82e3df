package relay

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestHugeLimits checks that the largest number is no limit, and refuses nothing.
func TestHugeLimits(t *testing.T) {
	offer := strings.Repeat("x", 10_000)
	for name, conf := range map[string]Config{
		"offers":     {MaxOffers: math.MaxInt},
		"offer size": {MaxOfferSize: math.MaxInt},
		"listeners":  {MaxListeners: math.MaxInt},
		"others":     {MaxOffersPerName: math.MaxInt, MaxSessionsPerAccount: math.MaxInt, MaxConnectionsPerSource: math.MaxInt},
	} {
		t.Run(name, func(t *testing.T) {
			runLab(t, &conf, func(l *lab) {
				alice, bob := l.pair()
				waiting := l.peer()
				time.AfterFunc(20*time.Second, func() { alice.put(waiting.name(), l.server.Token(), "at last") })
				if status, got := waiting.take(waiting.name(), "", 30*time.Second); status != http.StatusOK || got != "at last" {
					l.Errorf("without a token: took %q, status %d", got, status)
				}
				for range 2 { // more than one offer may have
					wantStatus(l, "leave", alice.put(bob.name(), l.server.Token(), offer), http.StatusNoContent)
				}
			})
		})
	}
}

// TestHugeMaxTunnels is TestHugeLimits for tunnels.
func TestHugeMaxTunnels(t *testing.T) {
	runLab(t, &Config{MaxTunnels: math.MaxInt}, func(l *lab) {
		l.serveTCP()
		for range 2 {
			if _, _, err := l.ask("198.51.100.1:1000", ownPath, nil); err != nil {
				l.Error(err)
			}
		}
	})
}
