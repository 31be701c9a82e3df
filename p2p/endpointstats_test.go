package p2p

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/control"
)

// total is the number of times that a histogram has.
func total(h Times) (n uint64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// TestEndpointStats checks what the endpoints of one connection count, from the dial to the end:
// a direct path that dies, and the relay after it.
func TestEndpointStats(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.public().peer(nil), l.public().peer(nil)
		a, b := l.connect(alice, bob)
		l.until(Direct, a, b)
		time.Sleep(time.Minute)
		l.exchange(a, b, 10_000)
		s := alice.Stats()
		if s.Connections[Direct] != 1 || s.Connections[Relayed] != 0 || s.Migrations[Direct] != 1 || s.Migrations[LAN] != 0 {
			l.Errorf("connections %v, migrations %v", s.Connections, s.Migrations)
		}
		if total(s.RTT[Direct]) < 3 || s.RTT[Direct].Sum < 20*time.Millisecond {
			l.Errorf("round-trip times in a minute: %v", s.RTT[Direct])
		}
		if d := s.TimeToDirect; total(d) != 1 || d.Sum != a.Stats().TimeToDirect {
			l.Errorf("time to direct: %v, want %v", d, a.Stats().TimeToDirect)
		}
		if len(s.Relays) != 1 || s.Relays[0].Addr != relayAddr || s.Relays[0].Connections != 1 || s.Relays[0].Down || s.Relays[0].RTT == 0 {
			l.Errorf("relays %+v", s.Relays)
		}
		l.net.Cut("198.51.100.1", "198.51.100.2")
		l.until(Relayed, a, b)
		l.exchange(a, b, 10_000)
		if s := alice.Stats(); s.Connections[Relayed] != 1 || s.Fallbacks != a.Stats().Fallbacks || s.Attempts != a.Stats().Attempts {
			l.Errorf("connections %v, fallbacks %d, attempts %d", s.Connections, s.Fallbacks, s.Attempts)
		}
		died := func(h *host) uint64 { return h.Stats().PathEvents[WhyPathDied] }
		if n := died(alice) + died(bob); n == 0 || n != alice.Stats().Fallbacks+bob.Stats().Fallbacks {
			l.Errorf("%d paths have died", n)
		}
		_ = a.CloseWithError(0, "")
		<-b.cleaned
		<-a.cleaned
		if alice, bob := alice.Stats(), bob.Stats(); alice.Ended["closed"] != 1 || bob.Ended["closed"] != 1 ||
			alice.Dials["connected"] != 1 || bob.Offers["connected"] != 1 || bob.UsedOffers != 1 || alice.Connections[Relayed] != 0 {
			l.Errorf("at the end: %+v, %+v", alice, bob)
		}
	})
}

// TestOtherRelays checks that a relay that is not configured is counted with no address of its
// own, and that a configured one that is gone is down.
func TestOtherRelays(t *testing.T) {
	runLab(t, func(l *lab) {
		bob := l.host(func(c *Config) { c.Relay = Relay{Addr: "192.0.2.9:1"} })
		_, _ = l.connect(l.host(nil), bob)
		s := bob.Stats()
		if s.OtherRelays != 1 || len(s.Relays) != 1 || s.Relays[0] != (RelayStats{Addr: "192.0.2.9:1"}) {
			l.Errorf("%d connections through other relays; configured ones: %+v", s.OtherRelays, s.Relays)
		}
		ctx, cancel := context.WithTimeout(l.Context(), 30*time.Second)
		defer cancel()
		if _, err := bob.Dial(ctx, someID(l.T), nil); !errors.Is(err, ErrRelayUnreachable) {
			l.Errorf("dial: %v", err)
		}
		if s := bob.Stats(); s.Dials["relay_unreachable"] != 1 {
			l.Errorf("dials %v", s.Dials)
		}
	})
}

// TestRefusalsAreCounted checks that peers that [Config.AllowPeer] does not allow, and used
// offers, are counted.
func TestRefusalsAreCounted(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.host(nil), l.host(func(c *Config) { c.AllowPeer = func(PeerID) bool { return false } })
		offer, dialed := l.offer(alice, bob.ID())
		for range 2 {
			if _, err := bob.AcceptOffer(l.Context(), offer); !errors.Is(err, ErrPeerMismatch) {
				l.Errorf("accept: %v", err)
			}
		}
		carol := l.host(nil)
		if _, err := carol.AcceptOffer(l.Context(), Offer{}); !errors.Is(err, ErrMalformedOffer) {
			l.Errorf("accept: %v", err)
		}
		<-dialed
		if s := bob.Stats(); s.Offers["peer_not_allowed"] != 2 || s.Offers["connected"] != 0 {
			l.Errorf("offers %v", s.Offers)
		}
		if s := carol.Stats(); s.Offers["malformed"] != 1 {
			l.Errorf("offers %v", s.Offers)
		}
		if s := alice.Stats(); s.Dials["offer_expired"] != 1 || s.Dialing != 0 {
			l.Errorf("dials %v, %d under way", s.Dials, s.Dialing)
		}
	})
}

// TestOutcomes checks which outcome and which ending each error is.
func TestOutcomes(t *testing.T) {
	for want, err := range map[string]error{
		"connected":        nil,
		"closed":           ErrClosed,
		"peer_not_allowed": fmt.Errorf("x: %w", errNotAllowed),
		"peer_mismatch":    fmt.Errorf("x: %w", ErrPeerMismatch),
		"peer_absent":      fmt.Errorf("%w: %w", ErrPeerAbsent, ErrOfferExpired),
		"not_forwarded":    fmt.Errorf("%w: %w", ErrNotForwarded, ErrOfferExpired),
		"unauthorized":     &refusedError{control.Problem{Code: control.CodeUnauthorized}},
		"offer_used":       errClaimed,
		"canceled":         context.DeadlineExceeded,
		"other":            errors.New("x"),
	} {
		if got := outcomeNames[outcomeOf(err)].name; got != want {
			t.Errorf("%v is %q, want %q", err, got, want)
		}
	}
	for want, err := range map[string]error{
		"closed":            &quic.ApplicationError{},
		"application_error": &quic.ApplicationError{ErrorCode: 7},
		"peer_gone":         ErrPeerGone,
		"peer_refused":      errors.Join(ErrPeerRefused, &quic.ApplicationError{ErrorCode: CodeHandshake}),
		"no_direct_path":    ErrNoDirectPath,
		"no_path":           errors.Join(ErrNoPath, &quic.IdleTimeoutError{}),
		"idle_timeout":      &quic.IdleTimeoutError{},
		"stateless_reset":   &quic.StatelessResetError{},
		"transport_error":   &quic.TransportError{},
		"other":             errors.New("x"),
	} {
		if got := endingNames[endingOf(err)]; got != want {
			t.Errorf("%v is %q, want %q", err, got, want)
		}
	}
}

// TestStatsAreComplete checks that the maps have all keys from the start.
func TestStatsAreComplete(t *testing.T) {
	runLab(t, func(l *lab) {
		s := l.host(nil).Stats()
		if len(s.Connections) != len(kindNames) || len(s.RTT) != len(kindNames) || len(s.PathEvents) != len(reasonNames) ||
			len(s.Dials) != len(outcomeNames) || len(s.Offers) != len(outcomeNames)+2 || len(s.Ended) != int(numEndings) || len(s.Migrations) != 2 {
			l.Errorf("%+v", s)
		}
	})
}
