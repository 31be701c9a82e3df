package relay

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/amplify"
	"github.com/quicway/quicway/internal/test/nettest"
)

func wantEmpty(t *testing.T, g *gate) {
	t.Helper()
	if g.total != 0 || g.handshake != 0 || g.all != (stageCounts{}) || len(g.each) != 0 {
		t.Errorf("%d connections, %d handshakes, %d sources are left", g.total, g.handshake, len(g.each))
	}
}

// TestGate checks that control connections are bounded, and that a connection frees its
// place when its context is done.
func TestGate(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		s := &controlServer{gate: gate{max: 3, maxEach: 3}, amplify: amplify.New(amplify.Config{})}
		info := &quic.ClientInfo{RemoteAddr: &net.UDPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 7}}
		ctx, end := context.WithCancel(context.Background())
		for range 3 {
			c, err := s.enterQUIC(ctx, info)
			if err != nil {
				t.Fatal(err)
			}
			p := c.Value(clientKey{}).(*client).admission
			for range 2 {
				if !p.establish() {
					t.Error("an admitted connection could not be established")
				}
			}
		}
		if _, err := s.enterQUIC(ctx, info); err == nil {
			t.Error("one connection too many was admitted")
		}
		end()
		synctest.Wait()
		wantEmpty(t, &s.gate)
		if _, err := s.enterQUIC(context.Background(), info); err != nil {
			t.Errorf("after all have gone: %v", err)
		}
	})
}

// TestGateBySource checks that neither a source nor a site with many sources can use up all
// connections.
func TestGateBySource(t *testing.T) {
	g := gate{max: 1000, maxEach: 2}
	enter := func(ip string) bool {
		p := g.enter(netip.MustParseAddr(ip).Unmap(), true)
		return p != nil && p.establish()
	}
	for _, test := range []struct {
		ip string
		ok bool
	}{
		{"192.0.2.1", true}, {"192.0.2.1", true}, {"::ffff:192.0.2.1", false}, {"192.0.2.2", true},
		{"2001:db8::1", true}, {"2001:db8::2", true}, {"2001:db8::3", false}, {"2001:db8:0:1::3", true},
	} {
		if got := enter(test.ip); got != test.ok {
			t.Errorf("%s: %v, want room: %v", test.ip, got, test.ok)
		}
	}
	n := 0
	for i := range 100 {
		addr := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 1, 0, byte(i), 15: 1})
		if enter(addr.String()) {
			n++
		}
	}
	if n != 2*siteFactor {
		t.Errorf("a site has %d connections, want %d", n, 2*siteFactor)
	}
}

// TestHandshakesTakeNoConnections checks that handshakes, with or without a Retry token,
// use up only the places for handshakes.
func TestHandshakesTakeNoConnections(t *testing.T) {
	g := gate{max: 100_000, maxEach: 1024}
	victim := netip.MustParseAddr("192.0.2.7")
	forged := []*admission{}
	for range 2000 {
		for _, token := range []bool{false, true} {
			if p := g.enter(victim, token); p != nil {
				forged = append(forged, p)
			}
		}
	}
	if want := retryFromSource + maxAnsweredEach; len(forged) != want || g.handshake != want {
		t.Errorf("%d handshakes of one address, want %d", len(forged), want)
	}
	if !g.needsRetry(victim) {
		t.Error("no Retry for an address with many handshakes")
	}
	if g.needsRetry(netip.MustParseAddr("192.0.2.8")) {
		t.Error("a Retry for another address")
	}
	// When the handshakes with a Retry token are gone, which only the owner can make,
	// the owner can connect.
	for _, p := range forged {
		if p.stage == answered {
			p.leave()
		}
	}
	for range 1024 {
		if p := g.enter(victim, true); p == nil || !p.establish() {
			t.Fatal("the owner of the address cannot connect")
		}
	}
	if p := g.enter(victim, true); p != nil {
		t.Error("one connection too many of a source was admitted")
	}
	for _, p := range forged {
		if p.stage == fresh && p.establish() {
			t.Error("one connection too many of a source was established")
		}
	}
}

// TestGateAsksForRetry checks that many handshakes from different addresses without a Retry
// token make the server ask for a Retry.
func TestGateAsksForRetry(t *testing.T) {
	g := gate{max: 100_000, maxEach: 1024}
	n := 0
	for i := range 1000 {
		if g.enter(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), false) != nil {
			n++
		}
	}
	if n != retryFrom || !g.needsRetry(netip.MustParseAddr("192.0.2.8")) {
		t.Errorf("%d handshakes without a Retry token, want %d", n, retryFrom)
	}
}
