package sni

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/splice/sockmap"
	"github.com/quicway/quicway/internal/test/nettest"
)

// newSockmapServer runs a server that relays with sockmap, although the kernel may fail the
// self test.
func newSockmapServer(t *testing.T, u *server) *Server {
	t.Helper()
	program, err := sockmap.LoadUntested(0)
	if errors.Is(err, sockmap.ErrPermission) || errors.Is(err, sockmap.ErrUnsupported) {
		nettest.Missing(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	conf := early(func(*Candidate) bool { return true })
	conf.Method = Sockmap
	cfg := &Config{Routes: routeTo(u), Splice: conf}
	s, err := newWithKernel(cfg, l, nil, func(*Splice, *slog.Logger) (kernelPath, error) { return &sockmapPath{program}, nil })
	if err != nil {
		t.Fatal(err)
	}
	runServer(t, s)
	return s
}

// TestSockmap checks that connections which go into a sockmap lose no byte, and end as they
// should.
func TestSockmap(t *testing.T) {
	u := newUpstream(t)
	s := newSockmapServer(t, u)
	data := make([]byte, 4<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data) // never fails
	for range 5 {
		client, upstream := open(t, s, u, "a.test")
		say(t, client, upstream, "begin")
		nettest.Eventually(t, "the takeover", func() bool { return s.Stats().Splice.InKernel == 1 })
		for _, way := range []struct{ from, to *net.TCPConn }{{client, upstream}, {upstream, client}} {
			go func() {
				_, _ = way.from.Write(data) // the other side checks
				_ = way.from.CloseWrite()
			}()
			if got, err := io.ReadAll(way.to); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes arrived, %v", len(got), err)
			}
		}
		nettest.Eventually(t, "the end", func() bool { return s.Stats().Open == 0 })
	}
	hello := uint64(len(helloOf(t, "a.test")))
	if st := s.Stats(); st.FromClients != 5*(hello+5+4<<20) || st.FromUpstreams != 5*4<<20 || st.Reset != 0 || st.Splice.Takeovers != 5 {
		t.Errorf("got %+v", st)
	}
}

// TestSockmapBulk checks connections that go into a sockmap while both ends send.
func TestSockmapBulk(t *testing.T) {
	u := newUpstream(t)
	s := newSockmapServer(t, u)
	data := make([]byte, 8<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data) // never fails
	for range 10 {
		client, upstream := open(t, s, u, "a.test")
		result := make(chan error, 2)
		for _, way := range []struct{ from, to *net.TCPConn }{{client, upstream}, {upstream, client}} {
			go func() {
				_, _ = way.from.Write(data) // the other side checks
				_ = way.from.CloseWrite()
			}()
			go func() {
				got, err := io.ReadAll(way.to)
				if err == nil && !bytes.Equal(got, data) {
					err = errors.New("other bytes than those that were sent")
				}
				result <- err
			}()
		}
		if err := errors.Join(<-result, <-result); err != nil {
			t.Error(err)
		}
	}
	nettest.Eventually(t, "the end", func() bool { return s.Stats().Open == 0 })
	t.Logf("%+v", s.Stats().Splice)
}

// TestSockmapReset checks that a reset is passed on, and that Close resets what is in the kernel.
func TestSockmapReset(t *testing.T) {
	u := newUpstream(t)
	s := newSockmapServer(t, u)
	client, upstream := open(t, s, u, "a.test")
	say(t, client, upstream, "begin")
	nettest.Eventually(t, "the takeover", func() bool { return s.Stats().Splice.InKernel == 1 })
	reset(client)
	wantReset(t, "the upstream", upstream)
	nettest.Eventually(t, "the counter", func() bool { return s.Stats().Reset == 1 })
	client, upstream = open(t, s, u, "a.test")
	say(t, client, upstream, "begin")
	nettest.Eventually(t, "the takeover", func() bool { return s.Stats().Splice.InKernel == 1 })
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wantReset(t, "the client", client)
	wantReset(t, "the upstream", upstream)
}

// TestSockmapRefused checks that a server whose kernel fails the self test says so, and relays
// in userspace.
func TestSockmapRefused(t *testing.T) {
	program, err := sockmap.Load(0)
	if err == nil {
		program.Close()
		t.Skip("this kernel passes the self test")
	}
	u := newUpstream(t)
	s := newServer(t, &Config{Routes: routeTo(u), Splice: &Splice{Method: Sockmap}})
	client, upstream := open(t, s, u, "a.test")
	say(t, client, upstream, "in userspace")
	if got := s.Stats().Splice.Off; !strings.Contains(got, err.Error()) {
		t.Errorf("got %q, want %q", got, err)
	}
}

// TestSockmapSlowReader checks that the server can be closed while a copy loop waits for a reader that
// does not read, so that the sockmap cannot have the connection yet.
func TestSockmapSlowReader(t *testing.T) {
	u := newUpstream(t)
	s := newSockmapServer(t, u)
	client, _ := open(t, s, u, "a.test")
	go func() {
		for data := make([]byte, 1<<20); ; {
			if _, err := client.Write(data); err != nil {
				return
			}
		}
	}()
	nettest.Eventually(t, "the takeover", func() bool { return s.Stats().Splice.Takeovers > 0 })
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the server is not closed")
	}
}
