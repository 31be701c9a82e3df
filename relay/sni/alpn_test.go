package sni

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"testing"

	"github.com/quic-go/quic-go"
)

// TestManyProtocols checks that a client that lists thousands of protocols does not make the relay
// keep them for as long as its connection lasts.
func TestManyProtocols(t *testing.T) {
	many := append([]string{"test"}, slices.Repeat([]string{"x"}, 5000)...)
	u, tcp := newQUICUpstream(t, "a", nil), newUpstream(t)
	s := newQUICServer(t, &Config{Routes: routesTo("a.test", u.addr())})
	conf := clientTLS("a.test")
	conf.NextProtos = many
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := newTransport(t).Dial(ctx, net.UDPAddrFromAddrPort(s.Addr()), conf, &quic.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ask(t, conn, 1000)
	s.quic.table.mu.Lock()
	for f := range s.quic.table.flows {
		wantFewProtocols(t, &f.conn.hello)
	}
	s.quic.table.mu.Unlock()

	s = newServer(t, &Config{Routes: []*Route{{Names: []string{"a.test"}, ALPN: []string{"test"}, Upstreams: []string{tcp.addr()}}}})
	client := dial(t, s)
	go func() { _ = tls.Client(client, conf).HandshakeContext(ctx) }() // ends with the test
	tcp.accept()
	for _, c := range s.conns.all() {
		c.mu.Lock()
		wantFewProtocols(t, &c.hello)
		c.mu.Unlock()
	}
}

func wantFewProtocols(t *testing.T, h *Hello) {
	t.Helper()
	if h.ServerName != "a.test" || len(h.ALPN) != maxALPN || cap(h.ALPN) != maxALPN || h.ALPN[0] != "test" {
		t.Errorf("%s: %d protocols are kept in room for %d, want %d", h.ServerName, len(h.ALPN), cap(h.ALPN), maxALPN)
	}
}
