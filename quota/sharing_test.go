package quota

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/test/nettest"
)

// balancer is a prefix of addresses that all clients have.
const balancer = "203.0.113.0/24"

// TestSharedSource checks that a source that many clients share is held only to the limits of
// all sources together, and to those that its override has, and can be denied.
func TestSharedSource(t *testing.T) {
	for _, from := range []string{"203.0.113.9", "2001:db8::9"} {
		prefix := netip.MustParsePrefix(balancer)
		if netip.MustParseAddr(from).Is6() {
			prefix = netip.MustParsePrefix("2001:db8::/64")
		}
		c := mustNew(t, &Config{
			Now:    newFakeClock().now,
			Source: Limits{Connections: 1, HalfOpen: 1, ConnectionRate: 1, RequestRate: 1, AttemptRate: 1, PacketRate: 1},
			Site:   Limits{Connections: 2, RequestRate: 2, PacketRate: 2}, RetrySource: 1,
			Total:     Limits{Connections: 20, RequestRate: 1, RequestBurst: 30},
			Overrides: []Override{{Prefix: prefix, Shared: true, Limits: Limits{AttemptRate: 1e-6, AttemptBurst: 50}}},
		})
		at := func(i int) string { return netip.AddrPortFrom(netip.MustParseAddr(from), uint16(i)).String() }
		for i := range 10 {
			if c.WantsRetry(addr(at(i))) {
				t.Error("got a Retry")
			}
			wantAdmit(t, c, at(i), i%2 == 0, PassNew)
		}
		for i := range 15 {
			wantAdmit(t, c, at(100+i), true, PassNew)
		}
		wantAdmit(t, c, at(200), true, TotalConnections)
		for i := range 31 {
			if wait := c.Request(netip.MustParseAddr(from)); (wait > 0) != (i == 30) {
				t.Errorf("request %d has to wait for %v", i, wait)
			}
		}
		c = mustNew(t, c.conf)
		f := &filter{c: c, idLen: 4}
		for i := range 51 {
			pass, why := f.decide(addr(at(i)), attempt(byte(i)), c.clock.now())
			if want := i < 50; pass != want || !want && why != AttemptRate {
				t.Errorf("attempt %d: pass %v, %v", i, pass, why)
			}
		}
		if s := c.Stats(); s.Sites != 0 {
			t.Errorf("it belongs to %d sites", s.Sites)
		}
		if err := c.Deny(netip.PrefixFrom(netip.MustParseAddr(from), 128-96*(len(netip.MustParseAddr(from).AsSlice())%16/4)), 0, ""); err != nil {
			t.Fatal(err)
		}
		if pass, why := f.decide(addr(at(99)), attempt(99), c.clock.now()); pass || why != Denied {
			t.Errorf("denied: pass %v, %v", pass, why)
		}
	}
}

// TestConnectionsOfSharedSource checks that connections of a shared source have each their own
// rate of requests.
func TestConnectionsOfSharedSource(t *testing.T) {
	conf := &Config{
		ConnectionRequestRate: 1e-6, ConnectionRequestBurst: 1, Source: Limits{Connections: 1},
		Overrides: []Override{{Prefix: netip.MustParsePrefix(balancer), Shared: true}},
	}
	runLab(t, conf, func(l *lab) {
		l.net.Set(nettest.Conditions{})
		for i := range 3 {
			c := l.client("203.0.113.9")
			defer c.close()
			conn, err := c.dial(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			h3 := (&http3.Transport{}).NewClientConn(conn)
			for _, want := range []int{200, 429} {
				if resp, err := getOn(context.Background(), h3); err != nil || resp.StatusCode != want {
					t.Errorf("connection %d: %v, %v, want %d", i, resp, err, want)
				}
			}
		}
	})
}

// hidden is the address that clientBehind finds behind port 1000+i of a balancer.
func hidden(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("198.51.100.%d", i)) }

func clientBehind(from netip.AddrPort) netip.Addr {
	if netip.MustParsePrefix(balancer).Contains(from.Addr()) {
		return hidden(int(from.Port()) - 1000)
	}
	return netip.Addr{}
}

// TestSourceOf checks that all limits and lists are about the address that SourceOf finds.
func TestSourceOf(t *testing.T) {
	c := mustNew(t, &Config{
		Now: newFakeClock().now, SourceOf: clientBehind,
		Source: Limits{Connections: 1, PacketRate: 1e-6, PacketBurst: 3, AttemptRate: 1e-6, AttemptBurst: 1},
	})
	ended := make(chan struct{})
	slot := wantAdmit(t, c, "203.0.113.9:1001", true, PassNew)
	slot.OnEnd(func() { close(ended) })
	wantAdmit(t, c, "203.0.113.9:1002", true, PassNew)
	wantAdmit(t, c, "203.0.113.8:1002", true, Connections)
	wantAdmit(t, c, "192.0.2.1:7", true, PassNew) // not found
	wantAdmit(t, c, "192.0.2.1:8", true, Connections)
	if slot.Remote() != addr("203.0.113.9:1001") {
		t.Errorf("it comes from %v", slot.Remote())
	}
	f := &filter{c: c, idLen: 4}
	decide := func(from string, id byte, want Reason) {
		t.Helper()
		if _, why := f.decide(addr(from), attempt(id), c.clock.now()); why != want {
			t.Errorf("from %s: %v, want %v", from, why, want)
		}
	}
	decide("203.0.113.9:1003", 1, PassNew)
	decide("203.0.113.9:1003", 1, PassFlow)
	decide("203.0.113.8:1003", 1, AttemptRate) // another address and port is another attempt
	decide("203.0.113.8:1003", 2, PacketRate)
	decide("203.0.113.9:1004", 1, PassNew)
	if err := c.Deny(netip.MustParsePrefix("198.51.100.5/32"), 0, ""); err != nil {
		t.Fatal(err)
	}
	decide("203.0.113.9:1005", 1, Denied)
	wantAdmit(t, c, "203.0.113.9:1005", true, Denied)
	if n := c.End(netip.PrefixFrom(hidden(1), 32)); n != 1 {
		t.Fatalf("ended %d connections, want 1", n)
	}
	<-ended
	if n := c.End(netip.MustParsePrefix(balancer)); n != 0 {
		t.Errorf("ended %d connections of the balancer's own addresses", n)
	}
}

// TestSourceOfRequests checks that the requests of a connection, and others, are charged to the
// source that SourceOf finds.
func TestSourceOfRequests(t *testing.T) {
	conf := &Config{SourceOf: clientBehind, Source: Limits{RequestRate: 1e-6, RequestBurst: 2}}
	runLab(t, conf, func(l *lab) {
		l.net.Set(nettest.Conditions{})
		for range 2 { // from two ports
			c := l.client("203.0.113.9")
			defer c.close()
			conn, err := c.dial(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			h3 := (&http3.Transport{}).NewClientConn(conn)
			for i, want := range []int{200, 200, 429} {
				if resp, err := getOn(context.Background(), h3); err != nil || resp.StatusCode != want {
					t.Errorf("request %d: %v, %v, want %d", i, resp, err, want)
				}
			}
		}
		r, w := httptest.NewRequest("GET", "https://server/", nil), httptest.NewRecorder()
		r.RemoteAddr = "203.0.113.8:1002" // over TCP
		if l.http.Handler.ServeHTTP(w, r); w.Code != http.StatusTooManyRequests {
			t.Errorf("over TCP: status %d", w.Code)
		}
		for _, s := range l.c.Top(10) {
			if s.Source != netip.PrefixFrom(hidden(1), 32) && s.Source != netip.PrefixFrom(hidden(2), 32) {
				t.Errorf("a request was charged to %v", s.Source)
			}
		}
	})
}
