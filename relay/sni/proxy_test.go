package sni

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"testing"

	"github.com/pires/go-proxyproto"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestSendProxy checks the header that an upstream gets.
func TestSendProxy(t *testing.T) {
	for version := 1; version <= 2; version++ {
		u := newUpstream(t)
		s := newServer(t, &Config{Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{u.addr()}, SendProxy: version}}})
		hello := helloOf(t, "a.test")
		client := dial(t, s)
		if _, err := client.Write(hello); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(u.accept())
		h, err := proxyproto.Read(r)
		if err != nil {
			t.Fatal(err)
		}
		if int(h.Version) != version || h.SourceAddr.String() != client.LocalAddr().String() || h.DestinationAddr.String() != s.Addr().String() {
			t.Errorf("got version %d, %v to %v", h.Version, h.SourceAddr, h.DestinationAddr)
		}
		got := make([]byte, len(hello))
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, hello) {
			t.Errorf("the ClientHello did not arrive: %v", err)
		}
	}
}

// TestProxyFrom checks that the header of a balancer names the client, for limits and for
// the upstream.
func TestProxyFrom(t *testing.T) {
	const v1 = "PROXY TCP4 192.0.2.7 198.51.100.1 4000 443\r\n"
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x21\x00\x24" + string(make([]byte, 15)) + "\x01" + string(make([]byte, 15)) + "\x02\x0f\xa0\x01\xbb"
	local := "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
	for _, tc := range []struct{ header, want string }{{v1, "192.0.2.7:4000"}, {v2, "[::1]:4000"}, {local, "127.0.0.1"}} {
		u := newUpstream(t)
		s := newServer(t, &Config{
			ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, MaxConnectionsPerSource: 1,
			Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{u.addr()}}},
		})
		hello := helloOf(t, "a.test")
		client := dial(t, s)
		if _, err := client.Write(append([]byte(tc.header), hello...)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(hello))
		if _, err := io.ReadFull(u.accept(), got); err != nil || !bytes.Equal(got, hello) {
			t.Errorf("the upstream did not get the ClientHello alone: %v", err)
		}
		for c := range s.Connections() {
			if c.Client.String() != tc.want && c.Client.Addr().String() != tc.want {
				t.Errorf("got client %v, want %s", c.Client, tc.want)
			}
		}
		second := dial(t, s)
		if _, err := io.WriteString(second, tc.header); err != nil {
			t.Fatal(err)
		}
		wantReset(t, "a second of the same client", second)
		wantFailed(t, s, SourceFull, 1)
		without := dial(t, s)
		if _, err := without.Write(hello); err != nil {
			t.Fatal(err)
		}
		wantReset(t, "one without a header", without)
		wantFailed(t, s, ProxyHeader, 1)
	}
}

// TestProxyFromMapped checks that a prefix of IPv4 that is mapped into IPv6 is one of IPv4.
func TestProxyFromMapped(t *testing.T) {
	u := newUpstream(t)
	from := []netip.Prefix{netip.MustParsePrefix("::ffff:127.0.0.0/104")}
	s := newServer(t, &Config{ProxyFrom: from, Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{u.addr()}}}})
	client := dial(t, s)
	if _, err := client.Write(append([]byte("PROXY TCP4 192.0.2.7 198.51.100.1 4000 443\r\n"), helloOf(t, "a.test")...)); err != nil {
		t.Fatal(err)
	}
	u.accept()
	for c := range s.Connections() {
		if got := c.Client.String(); got != "192.0.2.7:4000" {
			t.Errorf("got client %s", got)
		}
	}
	if from[0] != netip.MustParsePrefix("::ffff:127.0.0.0/104") {
		t.Error("the caller's prefix was changed")
	}
}

// TestStrangersHeader checks that a header is not believed if it does not come from a
// balancer.
func TestStrangersHeader(t *testing.T) {
	s := newServer(t, &Config{ProxyFrom: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	c := dial(t, s)
	if _, err := io.WriteString(c, "PROXY TCP4 192.0.2.7 198.51.100.1 4000 443\r\n"); err != nil {
		t.Fatal(err)
	}
	wantReset(t, "the client", c)
	wantFailed(t, s, NoRoute, 1)
}

// TestRouter checks that a Router decides before the routes, and that its error refuses.
func TestRouter(t *testing.T) {
	u, other := newUpstream(t), newUpstream(t)
	own := &Route{Name: "own", Upstreams: []string{other.addr()}}
	s := newServer(t, &Config{
		Routes: []*Route{{Names: []string{"*"}, Upstreams: []string{u.addr()}}},
		Router: func(_ context.Context, h *Hello) (*Route, error) {
			switch h.ServerName {
			case "own.test":
				return own, nil
			case "bad.test":
				return nil, errors.New("no")
			case "invalid.test":
				return &Route{Upstreams: []string{"x"}}, nil
			}
			h.ServerName = "changed" // has no effect
			return nil, nil
		},
	})
	open(t, s, other, "own.test")
	open(t, s, u, "a.test")
	for _, name := range []string{"bad.test", "invalid.test"} {
		c := dial(t, s)
		if _, err := c.Write(helloOf(t, name)); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, unrecognizedName) {
			t.Errorf("%s: got %x, %v", name, got, err)
		}
	}
	wantFailed(t, s, RouterRefused, 2)
	nettest.Eventually(t, "their end", func() bool { return s.Stats().Open == 2 })
	names := make(map[string]string)
	for c := range s.Connections() {
		names[c.ServerName] = c.Route
	}
	if len(names) != 2 || names["own.test"] != "own" || names["a.test"] != "*" {
		t.Errorf("got %v", names)
	}
}
