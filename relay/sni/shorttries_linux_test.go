package sni

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// onWays runs a test with goroutines, and with loops that have limits.
func onWays(t *testing.T, loop shortLimits, test func(t *testing.T)) {
	for way, limits := range map[string]shortLimits{"goroutines": {}, "loop": loop} {
		t.Run(way, func(t *testing.T) {
			withLimits(t, limits)
			test(t)
		})
	}
}

// TestTurns checks that each connection takes one turn, whatever way its upstream is dialed.
func TestTurns(t *testing.T) {
	onWays(t, inLoop, func(t *testing.T) {
		for _, host := range []string{"127.0.0.1", "localhost"} {
			ups := []*server{newUpstream(t), newUpstream(t)}
			var addrs []string
			for _, u := range ups {
				addrs = append(addrs, strings.Replace(u.addr(), "127.0.0.1", host, 1))
			}
			s := newServer(t, &Config{Routes: []*Route{{Names: []string{"a.test"}, Upstreams: addrs}}})
			for i := range 6 {
				open(t, s, ups[i%2], "a.test")
			}
		}
	})
}

// TestTries checks that a connection tries three upstreams, and that the log has their addresses.
func TestTries(t *testing.T) {
	var addrs []string
	for range 5 {
		u := newUpstream(t)
		u.Close()
		addrs = append(addrs, u.addr())
	}
	onWays(t, inLoop, func(t *testing.T) {
		var log bytes.Buffer
		s := newServer(t, &Config{Routes: []*Route{{Names: []string{"a.test"}, Upstreams: addrs}}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		c := dial(t, s)
		if _, err := c.Write(helloOf(t, "a.test")); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || string(got) != string(internalError) {
			t.Errorf("got %x, %v", got, err)
		}
		if n := s.Stats().DialFailures; n != maxTries {
			t.Errorf("%d attempts, want %d", n, maxTries)
		}
		s.Close() // nobody writes to log any more
		for _, a := range addrs[:maxTries] {
			if want := fmt.Sprintf("dial tcp %s: connect: connection refused", a); !strings.Contains(log.String(), want) {
				t.Errorf("got %s, want %q", log.String(), want)
			}
		}
	})
}

// TestSilentUpstream checks that an upstream that does not answer is left out by the connections
// that follow, wherever its attempt began.
func TestSilentUpstream(t *testing.T) {
	onWays(t, shortLimits{300 * time.Millisecond, 64 << 10}, func(t *testing.T) {
		silent, _ := fullListener(t)
		u := newUpstream(t)
		s := newServer(t, &Config{
			Routes:      []*Route{{Names: []string{"a.test"}, Upstreams: []string{silent, u.addr()}}},
			DialTimeout: 500 * time.Millisecond,
		})
		open(t, s, u, "a.test")
		if st := s.Stats(); st.DialFailures != 1 {
			t.Errorf("%d failures, want that of the silent upstream", st.DialFailures)
		}
		if s.Routes()[0].pool.upstreams[0].leftOut(time.Now().Add(-patience)).IsZero() {
			t.Error("the silent upstream is not left out")
		}
	})
}

// TestUpstreamWithOwnPort checks that a loop serves an upstream with the port of the listener, and
// that the server itself is none.
func TestUpstreamWithOwnPort(t *testing.T) {
	withLimits(t, inLoop)
	s := newServer(t, &Config{})
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", s.Addr().Port()))
	if err != nil {
		t.Skip(err) // somebody else has the port, or loopback has one address
	}
	u := newUpstreamOn(t, l)
	if err := s.SetRoutes(append(routesTo("a.test", u.addr()), routesTo("self.test", s.Addr().String())...)); err != nil {
		t.Fatal(err)
	}
	open(t, s, u, "a.test")
	if !onlyConn(t, s).isShort() {
		t.Error("the connection has left its loop")
	}
	if _, err := dial(t, s).Write(helloOf(t, "self.test")); err != nil {
		t.Fatal(err)
	}
	wantFailed(t, s, UpstreamFailed, 1)
}

// TestLateDial checks that an attempt does not begin in a loop that the connection soon leaves.
func TestLateDial(t *testing.T) {
	for _, tc := range []struct {
		age, passed time.Duration
		late        bool
	}{
		{time.Hour, time.Minute, false},
		{time.Hour, time.Hour - lateDial/2, true},
		{time.Minute, 0, false},
		{time.Second, time.Second - lateDial/2, true},
		{time.Second, 2 * time.Second, true},
		{lateDial, lateDial - lateDial/4, true},
	} {
		s := &short{server: &Server{short: shortLimits{age: tc.age}}, conn: &conn{began: time.Now().Add(-tc.passed)}}
		if got := s.isLate(); got != tc.late {
			t.Errorf("%v of %v: got %v", tc.passed, tc.age, got)
		}
	}
	withLimits(t, shortLimits{200 * time.Millisecond, 64 << 10})
	silent, accept := fullListener(t)
	s := newServer(t, &Config{Routes: routesTo("a.test", silent)})
	client := dial(t, s)
	nettest.Eventually(t, "late", func() bool { return s.Stats().Open == 1 && time.Since(onlyConn(t, s).began) > 110*time.Millisecond })
	if _, err := client.Write(helloOf(t, "a.test")); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, "an attempt", func() bool { return s.Routes()[0].pool.upstreams[0].active.Load() == 1 })
	if onlyConn(t, s).isShort() {
		t.Error("the attempt began in the loop")
	}
	accept()
	nettest.Eventually(t, "the upstream", func() bool { return s.Stats().Relayed == 1 })
}
