package sni

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/quota"
)

// wantReset checks that a connection is reset without an answer.
func wantReset(t *testing.T, what string, c *net.TCPConn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s: got %d bytes and %v, want a reset", what, n, err)
	}
}

// wantRefused checks that a new connection is reset. It may be so early that the system
// has not told the client yet that it is connected.
func wantRefused(t *testing.T, what string, s *Server) {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wantReset(t, what, c.(*net.TCPConn))
}

// wantFailed waits until a failure has been counted a number of times.
func wantFailed(t *testing.T, s *Server, f Failure, n uint64) {
	t.Helper()
	nettest.Eventually(t, f.String(), func() bool { return s.Stats().Failed[f] == n })
}

// TestHelloTimeout checks that clients that do not finish their ClientHello are reset.
func TestHelloTimeout(t *testing.T) {
	s := newServer(t, &Config{HelloTimeout: 50 * time.Millisecond})
	for _, sent := range []string{"", "\x16\x03\x01\x02\x00\x01"} {
		c := dial(t, s)
		_, err := io.WriteString(c, sent)
		if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
			continue // it was reset before
		}
		wantReset(t, "a slow client", c)
	}
	wantFailed(t, s, HelloTimeout, 2)
}

// TestHelloFailures checks that each failure of a client is counted under its name.
func TestHelloFailures(t *testing.T) {
	s := newServer(t, nil)
	for f, sent := range map[Failure]string{
		HelloInvalid: "\x16\x03\x01\x00\x05\x02\x00\x00\x00\x00",
		HelloTooLong: "\x16\x03\x01\x40\x00\x01\x00\x80\x00",
		HelloEnded:   "\x16",
	} {
		c := dial(t, s)
		if _, err := io.WriteString(c, sent); err != nil {
			t.Fatal(err)
		}
		_ = c.CloseWrite() // the server may have reset the connection
		wantFailed(t, s, f, 1)
	}
	reset(dial(t, s))
	wantFailed(t, s, HelloReset, 1)
	if _, err := dial(t, s).Write(helloOf(t, strings.Repeat("a.", 200))); err != nil {
		t.Fatal(err)
	}
	wantFailed(t, s, HelloInvalid, 2)
}

// TestMaxWaiting checks that clients that send no ClientHello cannot lock out others: the
// one that has waited longest makes room.
func TestMaxWaiting(t *testing.T) {
	u := newUpstream(t)
	s := newServer(t, &Config{MaxWaiting: 3, Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{u.addr()}}}})
	var slow []*net.TCPConn
	for i := range 3 {
		slow = append(slow, dial(t, s))
		nettest.Eventually(t, "a slow client", func() bool { return s.Stats().Waiting == i+1 })
	}
	open(t, s, u, "a.test")
	wantReset(t, "the oldest", slow[0])
	wantFailed(t, s, WaitingFull, 1)
	nettest.Eventually(t, "the other clients", func() bool { return s.Stats().Waiting == 2 && s.Stats().Relayed == 1 })
}

// TestSourceLimits checks the limits of one source.
func TestSourceLimits(t *testing.T) {
	u := newUpstream(t)
	s := newServer(t, &Config{
		MaxConnectionsPerSource: 3, MaxWaitingPerSource: 2,
		Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{u.addr()}}},
	})
	dial(t, s)
	dial(t, s)
	nettest.Eventually(t, "two that wait", func() bool { return s.Stats().Waiting == 2 })
	wantRefused(t, "a third that waits", s)
	wantFailed(t, s, WaitingFull, 1)
	s = newServer(t, &Config{MaxConnectionsPerSource: 2, Routes: s.Routes()})
	first, _ := open(t, s, u, "a.test")
	open(t, s, u, "a.test")
	wantRefused(t, "a third", s)
	wantFailed(t, s, SourceFull, 1)
	reset(first)
	nettest.Eventually(t, "the end", func() bool { return s.Stats().Open == 1 })
	open(t, s, u, "a.test")
}

// TestMaxConnections checks that connections beyond the limit wait until there is room.
func TestMaxConnections(t *testing.T) {
	u := newUpstream(t)
	s := newServer(t, &Config{MaxConnections: 1, Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{u.addr()}}}})
	first, _ := open(t, s, u, "a.test")
	second := dial(t, s) // the system accepts it
	if _, err := second.Write(helloOf(t, "a.test")); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Accepted != 1 {
		t.Errorf("got %+v", st)
	}
	reset(first)
	u.accept()
}

// TestRouteLimit checks Route.MaxConnections.
func TestRouteLimit(t *testing.T) {
	u := newUpstream(t)
	s := newServer(t, &Config{Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{u.addr()}, MaxConnections: 1}}})
	first, _ := open(t, s, u, "a.test")
	c := dial(t, s)
	if _, err := c.Write(helloOf(t, "a.test")); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != string(internalError) {
		t.Errorf("got %x, %v, want an alert", got, err)
	}
	wantFailed(t, s, RouteFull, 1)
	reset(first)
	nettest.Eventually(t, "the end", func() bool { return s.Stats().Open == 0 })
	open(t, s, u, "a.test")
}

// TestQuota checks that a controller admits connections, ends them, and gets their slots
// back.
func TestQuota(t *testing.T) {
	controller, err := quota.New(&quota.Config{Source: quota.Limits{Connections: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer controller.Close()
	u := newUpstream(t)
	s := newServer(t, &Config{Quota: controller, Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{u.addr()}}}})
	client, upstream := open(t, s, u, "a.test")
	wantRefused(t, "a second", s)
	wantFailed(t, s, QuotaRefused, 1)
	if n := controller.End(netip.MustParsePrefix("127.0.0.0/8")); n != 1 {
		t.Errorf("%d connections were ended, want 1", n)
	}
	wantReset(t, "the client", client)
	wantReset(t, "the upstream", upstream)
	nettest.Eventually(t, "the slot", func() bool { return controller.Stats().Connections == 0 })
}

// TestIdleTimeout checks that a connection without new bytes is reset at both sides, and
// one with bytes in one direction is not.
func TestIdleTimeout(t *testing.T) {
	u := newUpstream(t)
	s := newServer(t, &Config{IdleTimeout: 400 * time.Millisecond, Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{u.addr()}}}})
	idle, idleUpstream := open(t, s, u, "a.test")
	busy, busyUpstream := open(t, s, u, "a.test")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			if _, err := busyUpstream.Write([]byte{1}); err != nil {
				return
			}
			if _, err := io.ReadFull(busy, make([]byte, 1)); err != nil {
				return
			}
		}
	}()
	wantReset(t, "the client", idle)
	wantReset(t, "the upstream", idleUpstream)
	if st := s.Stats(); st.Idle != 1 || st.Open != 1 {
		nettest.Eventually(t, "the counter", func() bool { return s.Stats().Idle == 1 })
	}
	if n, _ := s.conns.count(); n != 1 {
		t.Errorf("%d connections are left, want the busy one", n)
	}
}

// TestBadConfig checks the errors of configurations.
func TestBadConfig(t *testing.T) {
	for want, cfg := range map[string]*Config{
		"HelloTimeout is -1s":        {HelloTimeout: -time.Second},
		"DialTimeout is -1s":         {DialTimeout: -time.Second},
		"MaxWaiting is -1":           {MaxWaiting: -1},
		"ProxyFrom has an invalid":   {ProxyFrom: []netip.Prefix{{}}},
		"neither Names nor NotTLS":   {Routes: []*Route{{}}},
		"MaxConnectionsPerSource is": {MaxConnectionsPerSource: -1},
		`"10.0.0.2:0", want a port`:  {Routes: []*Route{{NotTLS: true, Upstreams: []string{"10.0.0.2:0"}}}},
		`"h:99999", want a port`:     {Routes: []*Route{{NotTLS: true, Upstreams: []string{"h:https", "h:99999"}}}},
		"99999999999999999999":       {Routes: []*Route{{NotTLS: true, Upstreams: []string{"h:99999999999999999999"}}}},
	} {
		if _, err := Listen(t.Context(), "tcp", "127.0.0.1:0", cfg); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := New(nil, nil); !errors.Is(err, ErrConfig) {
		t.Errorf("got %v without a listener", err)
	}
	if _, err := Listen(t.Context(), "unix", t.TempDir()+"/s", nil); !errors.Is(err, ErrConfig) {
		t.Errorf("got %v for a Unix socket", err)
	}
}
