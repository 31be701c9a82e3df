package sni

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestRelay checks that TLS clients reach the servers of their names, and that bytes arrive
// as they were sent.
func TestRelay(t *testing.T) {
	routes := []*Route{
		{Names: []string{"a.test"}, Upstreams: []string{newTLSUpstream(t, "a")}},
		{Names: []string{"*.b.test"}, Upstreams: []string{newTLSUpstream(t, "b")}},
		{Names: []string{"*.b.test"}, ALPN: []string{"h2"}, Upstreams: []string{newTLSUpstream(t, "b with h2", "h2")}},
	}
	s := newServer(t, &Config{Routes: routes})
	for _, tc := range []struct {
		conf *tls.Config
		want string
	}{
		{&tls.Config{ServerName: "a.test"}, "a"},
		{&tls.Config{ServerName: "A.TEST", MaxVersion: tls.VersionTLS12}, "a"},
		{&tls.Config{ServerName: "x.b.test"}, "b"},
		{&tls.Config{ServerName: "x.b.test", NextProtos: []string{"h2"}}, "b with h2"},
		// A group that the server has to ask for: HelloRetryRequest.
		{&tls.Config{ServerName: "a.test", CurvePreferences: []tls.CurveID{tls.CurveP521, tls.X25519}}, "a"},
	} {
		if got, err := nameBehind(t, s, tc.conf); err != nil || got != tc.want {
			t.Errorf("%q: got %q, %v, want %q", tc.conf.ServerName, got, err, tc.want)
		}
	}
	c := tls.Client(dial(t, s), &tls.Config{ServerName: "a.test", InsecureSkipVerify: true})
	sent := make([]byte, 8<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(sent) // never fails
	go func() {
		_, _ = c.Write(sent) // the other side checks
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, append([]byte("a\n"), sent...)) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
}

// TestNoRoute checks what a client sees that has no route, or no upstream.
func TestNoRoute(t *testing.T) {
	gone := newUpstream(t)
	gone.Listener.Close()
	s := newServer(t, &Config{Routes: []*Route{
		{Names: []string{"refused.test"}},
		{Names: []string{"gone.test"}, Upstreams: []string{gone.addr()}},
	}})
	for name, want := range map[string]string{
		"other.test": "unrecognized name", "refused.test": "unrecognized name", "gone.test": "internal error",
	} {
		if _, err := nameBehind(t, s, &tls.Config{ServerName: name}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	c := dial(t, s)
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a client without TLS got %d bytes and %v, want a reset", n, err)
	}
	nettest.Eventually(t, "the counters", func() bool {
		st := s.Stats()
		return st.Failed[NoRoute] == 3 && st.Failed[UpstreamFailed] == 1 && st.DialFailures == 1
	})
}

// TestNotTLS checks that a stream that is not TLS goes to its route.
func TestNotTLS(t *testing.T) {
	u := newUpstream(t)
	s := newServer(t, &Config{Routes: []*Route{{NotTLS: true, Upstreams: []string{u.addr()}}}})
	client := dial(t, s)
	if _, err := io.WriteString(client, "x"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := io.ReadFull(u.accept(), b); err != nil || b[0] != 'x' {
		t.Errorf("got %q, %v", b, err)
	}
}

// TestSlowHello checks a ClientHello that arrives byte by byte, with more behind it.
func TestSlowHello(t *testing.T) {
	u := newUpstream(t)
	s := newServer(t, &Config{Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{u.addr()}}}})
	sent := append(helloOf(t, "a.test"), "0-RTT"...)
	client := dial(t, s)
	for _, b := range sent {
		if _, err := client.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(u.accept(), got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

// TestHalfClose checks that each end is passed on by itself, in every order.
func TestHalfClose(t *testing.T) {
	for _, first := range []string{"client", "upstream"} {
		t.Run(first, func(t *testing.T) {
			u := newUpstream(t)
			s := newServer(t, &Config{Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{u.addr()}}}})
			a, b := open(t, s, u, "a.test")
			if first == "upstream" {
				a, b = b, a
			}
			for _, end := range []struct{ from, to *net.TCPConn }{{a, b}, {b, a}} {
				if _, err := io.WriteString(end.from, "last"); err != nil {
					t.Fatal(err)
				}
				if err := end.from.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(end.to); err != nil || string(got) != "last" {
					t.Errorf("got %q, %v", got, err)
				}
			}
			nettest.Eventually(t, "the end", func() bool { return s.Stats().Open == 0 })
			if st := s.Stats(); st.Reset != 0 || st.FromUpstreams != 4 || st.Relayed != 1 {
				t.Errorf("got %+v", st)
			}
		})
	}
}

// TestReset checks that a reset of either side is a reset at the other one, also after one
// direction has ended.
func TestReset(t *testing.T) {
	for _, by := range []string{"client", "upstream"} {
		for _, ended := range []bool{false, true} {
			u := newUpstream(t)
			s := newServer(t, &Config{Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{u.addr()}}}})
			a, b := open(t, s, u, "a.test")
			if by == "upstream" {
				a, b = b, a
			}
			if ended {
				if err := b.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadAll(a); err != nil {
					t.Fatal(err)
				}
			}
			reset(a)
			if n, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("by the %s, half closed %v: got %d bytes and %v, want a reset", by, ended, n, err)
			}
			nettest.Eventually(t, "the counter", func() bool { return s.Stats().Reset == 1 })
		}
	}
}

// TestBackpressure checks that a reader that does not read stops the writer, and that
// nothing is lost when it reads again.
func TestBackpressure(t *testing.T) {
	u := newUpstream(t)
	s := newServer(t, &Config{Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{u.addr()}}}})
	client, upstream := open(t, s, u, "a.test")
	const size = 128 << 20 // more than all buffers on the way
	written := make(chan int64, 1)
	go func() {
		n, _ := io.CopyN(client, zeros{}, size) // the other side counts
		_ = client.CloseWrite()
		written <- n
	}()
	// The writer stops when it has filled the buffers.
	for last := uint64(0); ; {
		time.Sleep(300 * time.Millisecond)
		up, _ := onlyConn(t, s).relayed()
		if up == last && up > 0 {
			break
		}
		last = up
	}
	select {
	case n := <-written:
		t.Fatalf("%d bytes were taken for a reader that reads nothing", n)
	default:
	}
	if n, err := io.Copy(io.Discard, upstream); err != nil || n != size {
		t.Errorf("%d bytes arrived, %v", n, err)
	}
}

// zeros is a reader without end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// onlyConn returns the only connection of a server.
func onlyConn(t *testing.T, s *Server) *conn {
	t.Helper()
	all := s.conns.all()
	if len(all) != 1 {
		t.Fatalf("there are %d connections", len(all))
	}
	return all[0]
}

// TestManyConnections checks many connections at the same time, with routes that change.
func TestManyConnections(t *testing.T) {
	routes := []*Route{{Names: []string{"*.test"}, Upstreams: []string{newTLSUpstream(t, "1"), newTLSUpstream(t, "2")}, Balance: RandomTwo}}
	s := newServer(t, &Config{Routes: routes})
	stop := make(chan struct{})
	var changing sync.WaitGroup
	changing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := s.SetRoutes(append([]*Route{{Names: []string{"other"}}}, routes...)); err != nil {
					t.Error(err)
				}
				if err := s.SetRoutes(routes); err != nil {
					t.Error(err)
				}
			}
		}
	})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 25 {
				conf := &tls.Config{ServerName: "x.test", CurvePreferences: []tls.CurveID{tls.X25519}} // the cheapest
				if got, err := nameBehind(t, s, conf); err != nil || got != "1" && got != "2" {
					t.Errorf("got %q, %v", got, err)
				}
			}
		})
	}
	all.Wait()
	close(stop)
	changing.Wait()
	if st := s.Stats(); st.Relayed != 200 || st.UpstreamTime.Sum <= 0 {
		t.Errorf("got %+v", st)
	}
}
