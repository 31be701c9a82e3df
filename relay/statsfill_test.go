package relay

import (
	"net/http"
	"testing"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
)

// TestFill checks that Stats has what exists, and its limits.
func TestFill(t *testing.T) {
	runLab(t, &Config{MaxSessions: 5, MaxOffers: 8, MaxOfferSize: 1 << 10, MaxListeners: 7, MaxTunnels: -1}, func(l *lab) {
		alice, bob, _ := l.peer(), l.peer(), l.peer()
		alice.mustRegister(control.NewSessionID(), control.Register{Key: alice.key}, l.server.Token())
		wantStatus(l, "offer", alice.put("a", l.server.Token(), "hello"), http.StatusNoContent)
		bob.send(alice.packet(0, "held")) // bob is not registered
		alice.want()
		s := l.server.Stats()
		for name, is := range map[string][2]int{
			"sessions":           {s.Sessions, 1},
			"routes":             {s.Routes, 16},
			"offers":             {s.Offers, 1},
			"offer bytes":        {s.OfferBytes, len("hello")},
			"connections":        {s.Connections, 3},
			"handshakes":         {s.Handshakes + s.RetriedHandshakes, 0},
			"unauthenticated":    {s.Unauthenticated, 2},
			"listeners":          {s.Listeners, 0},
			"held packets":       {s.HeldPackets, 1},
			"waiting windows":    {s.WaitingWindows, 0},
			"limit: sessions":    {s.Limits.Sessions, 5},
			"limit: routes":      {s.Limits.Routes, 5 * idsPerSession},
			"limit: offers":      {s.Limits.Offers, 8},
			"limit: offer bytes": {s.Limits.OfferBytes, 8 * offerUnit},
			"limit: connections": {s.Limits.Connections, 2*5 + spareConnections},
			"limit: listeners":   {s.Limits.Listeners, 7},
			"limit: tunnels":     {s.Limits.TunnelConnections, 0},
			"limit: held":        {s.Limits.HeldPackets, maxHeld},
			"limit: windows":     {s.Limits.WaitingWindows, maxHits},
		} {
			if is[0] != is[1] {
				l.Errorf("%s: %d, want %d", name, is[0], is[1])
			}
		}
	})
}

// otherStore is a store that does not say how many IDs it has.
type otherStore struct{ cid.Store }

// TestFillOfOtherStore checks that a relay with a store of another kind has no number of routes,
// and that a mailbox that takes nothing has the limit 0.
func TestFillOfOtherStore(t *testing.T) {
	runLab(t, &Config{Store: otherStore{cid.NewMemoryStore(nil)}, MaxOffers: -1}, func(l *lab) {
		alice := l.peer()
		alice.mustRegister(control.NewSessionID(), control.Register{Key: alice.key}, l.server.Token())
		if s := l.server.Stats(); s.Routes != 0 || s.Limits.Routes != 0 || s.Limits.Offers != 0 || s.Limits.OfferBytes != 0 || s.Sessions != 1 {
			l.Errorf("%+v", s)
		}
	})
}
