package sni

import (
	"testing"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/wire"
)

// TestQUICLoopOfRelays checks that a datagram does not circulate for ever between two relays that
// relay to each other: its hop limit is used up.
func TestQUICLoopOfRelays(t *testing.T) {
	a, b := newQUICServer(t, nil), newQUICServer(t, nil)
	for from, to := range map[*Server]*Server{a: b, b: a} {
		if err := from.SetRoutes(routesTo("a.test", to.Addr().String())); err != nil {
			t.Fatal(err)
		}
	}
	send(t, udpConn(t, "127.0.0.1:0"), a.Addr(), initials(t, wire.Version1, testID(8), quicHello(t, "a.test"), 1)...)
	nettest.Eventually(t, "the end", func() bool {
		return a.Stats().QUIC.Dropped[DropHopLimit]+b.Stats().QUIC.Dropped[DropHopLimit] == 1
	})
	if n := a.Stats().QUIC.Accepted + b.Stats().QUIC.Accepted; n > 64 {
		t.Errorf("%d flows were opened", n)
	}
}
