package sni

import (
	"fmt"
	"io"
	"math"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// inLoop are limits that leave each connection in its loop.
var inLoop = shortLimits{time.Hour, math.MaxUint64}

// TestWays checks that it makes no difference whether a loop serves a connection, or goroutines,
// or the one and then the other.
func TestWays(t *testing.T) {
	for way, limits := range map[string]shortLimits{
		"loop": inLoop, "goroutines": {}, "promoted at once": {1, 0}, "promoted with bytes": {time.Hour, 0},
	} {
		for name, test := range map[string]func(*testing.T){
			"NoRoute": TestNoRoute, "NotTLS": TestNotTLS, "SlowHello": TestSlowHello,
			"HalfClose": TestHalfClose, "Reset": TestReset,
			"HelloFailures": TestHelloFailures, "MaxWaiting": TestMaxWaiting, "SourceLimits": TestSourceLimits,
			"MaxConnections": TestMaxConnections, "Quota": TestQuota, "IdleTimeout": TestIdleTimeout,
			"SendProxy": TestSendProxy, "ProxyFrom": TestProxyFrom, "Router": TestRouter, "NextUpstream": TestNextUpstream, "Names": TestNames,
			"Close": TestClose, "Shutdown": TestShutdown, "ShutdownTimeout": TestShutdownTimeout,
		} {
			t.Run(way+"/"+name, func(t *testing.T) {
				withLimits(t, limits)
				test(t)
			})
		}
	}
}

// withLimits sets the limits of short connections of new servers until the test ends.
func withLimits(t *testing.T, limits shortLimits) {
	testLimits = &limits
	t.Cleanup(func() { testLimits = nil })
}

// isShort reports whether a connection is in a loop.
func (c *conn) isShort() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.short != nil
}

// TestShort checks that a connection stays in its loop while it is short, and that it keeps its
// bytes and its ends when it leaves.
func TestShort(t *testing.T) {
	u := newUpstream(t)
	withLimits(t, shortLimits{time.Hour, 16 << 10})
	s := newServer(t, &Config{Routes: routeTo(u)})
	client, upstream := open(t, s, u, "a.test")
	if err := upstream.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(client); err != nil {
		t.Fatal(err)
	}
	if !onlyConn(t, s).isShort() {
		t.Error("a short connection is not in a loop")
	}
	const size = 1 << 20
	go func() { _, _ = io.CopyN(client, zeros{}, size) }() // the other side counts
	if n, err := io.CopyN(io.Discard, upstream, size); err != nil {
		t.Errorf("%d bytes arrived, %v", n, err)
	}
	if onlyConn(t, s).isShort() {
		t.Error("a long connection is in a loop")
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(upstream); err != nil || len(got) != 0 {
		t.Errorf("%d bytes were left, %v", len(got), err)
	}
	nettest.Eventually(t, "the end", func() bool { return s.Stats().Open == 0 })
	if st := s.Stats(); st.Reset != 0 || st.FromClients < size {
		t.Errorf("got %+v", st)
	}
}

// TestShortBackpressure checks that a connection leaves its loop when a reader does not read, and
// that nothing is lost.
func TestShortBackpressure(t *testing.T) {
	u := newUpstream(t)
	withLimits(t, inLoop)
	s := newServer(t, &Config{Routes: routeTo(u)})
	client, upstream := open(t, s, u, "a.test")
	const size = 64 << 20
	go func() {
		_, _ = io.CopyN(client, zeros{}, size) // the other side counts
		_ = client.CloseWrite()
	}()
	nettest.Eventually(t, "leave the loop", func() bool { return !onlyConn(t, s).isShort() })
	if n, err := io.Copy(io.Discard, upstream); err != nil || n != size {
		t.Errorf("%d bytes arrived, %v", n, err)
	}
}

// TestLateUpstream checks that an upstream that does not answer at once gets another attempt when
// the connection leaves its loop, and that Close ends an attempt in a loop.
func TestLateUpstream(t *testing.T) {
	late, accept := fullListener(t)
	for _, limits := range []shortLimits{inLoop, {300 * time.Millisecond, 0}} {
		withLimits(t, limits)
		s := newServer(t, &Config{Routes: routesTo("a.test", late)})
		client := dial(t, s)
		if _, err := client.Write(helloOf(t, "a.test")); err != nil {
			t.Fatal(err)
		}
		pool := &s.Routes()[0].pool
		nettest.Eventually(t, "an attempt", func() bool { return pool.upstreams[0].active.Load() == 1 })
		if limits == inLoop {
			s.Close()
			wantReset(t, "the client", client)
			continue
		}
		nettest.Eventually(t, "leave the loop", func() bool { return !onlyConn(t, s).isShort() })
		accept()
		nettest.Eventually(t, "the second attempt", func() bool { return s.Stats().Relayed == 1 })
		if st := s.Stats(); st.DialFailures != 0 {
			t.Errorf("got %+v", st)
		}
	}
}

// fullListener returns the address of a listener that answers nobody, until accept is called.
func fullListener(t *testing.T) (address string, accept func()) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address = fmt.Sprintf("127.0.0.1:%d", at.(*unix.SockaddrInet4).Port)
	first, err := net.Dial("tcp", address) // fills the queue
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { first.Close() })
	return address, func() {
		accepted, _, err := unix.Accept(fd)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(accepted)
	}
}
