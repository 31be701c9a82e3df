package sni

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestQUICByName checks that connections get to the upstream of their name, on a socket of
// their own and all on one.
func TestQUICByName(t *testing.T) {
	a, b, c := newQUICUpstream(t, "a", nil), newQUICUpstream(t, "b", nil), newQUICUpstream(t, "c", nil)
	s := newQUICServer(t, &Config{Routes: routesTo("a.test", a.addr(), "*.b.test", b.addr(), "*", c.addr())})
	shared := newTransport(t)
	for name, want := range map[string]string{"a.test": "a", "A.test": "a", "x.b.test": "b", "x.y.b.test": "b", "b.test": "c", "other": "c"} {
		for _, tr := range []string{"own", "shared"} {
			t.Run(name+"/"+tr, func(t *testing.T) {
				transport := shared
				if tr == "own" {
					transport = newTransport(t)
				}
				conn := dialQUIC(t, transport, s, name)
				for range 3 {
					if got := ask(t, conn, 100_000); got != want {
						t.Errorf("%s got to %s, want %s", name, got, want)
					}
				}
			})
		}
	}
	if st := s.Stats().QUIC; st.Relayed != 12 || st.Accepted != 12 || st.Moved != 0 {
		t.Errorf("got %+v", st)
	}
}

// TestQUICRetry checks that a connection whose upstream sends a Retry gets there.
func TestQUICRetry(t *testing.T) {
	u := newQUICUpstream(t, "a", func(tr *quic.Transport, _ *quic.Config) {
		tr.VerifySourceAddress = func(net.Addr) bool { return true }
	})
	s := newQUICServer(t, &Config{Routes: routesTo("a.test", u.addr())})
	if got := ask(t, dialQUIC(t, newTransport(t), s, "a.test"), 100_000); got != "a" {
		t.Errorf("got to %s", got)
	}
	if st := s.Stats().QUIC; st.Relayed != 1 || st.Accepted != 1 {
		t.Errorf("got %+v", st)
	}
}

// TestQUICVersion2 checks version 2 (RFC 9369).
func TestQUICVersion2(t *testing.T) {
	u := newQUICUpstream(t, "a", nil)
	s := newQUICServer(t, &Config{Routes: routesTo("a.test", u.addr())})
	conn, err := tryQUIC(t, newTransport(t), s.Addr(), "a.test", &quic.Config{Versions: []quic.Version{quic.Version2}})
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(t, conn, 100_000); got != "a" || conn.ConnectionState().Version != quic.Version2 {
		t.Errorf("got to %s with %v", got, conn.ConnectionState().Version)
	}
}

// TestQUICVersionNegotiation checks that a client whose version the upstream does not have
// begins again with another one.
func TestQUICVersionNegotiation(t *testing.T) {
	u := newQUICUpstream(t, "a", func(_ *quic.Transport, c *quic.Config) { c.Versions = []quic.Version{quic.Version2} })
	s := newQUICServer(t, &Config{Routes: routesTo("a.test", u.addr())})
	conn, err := tryQUIC(t, newTransport(t), s.Addr(), "a.test", &quic.Config{Versions: []quic.Version{quic.Version1, quic.Version2}})
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(t, conn, 1000); got != "a" || conn.ConnectionState().Version != quic.Version2 {
		t.Errorf("got to %s with %v", got, conn.ConnectionState().Version)
	}
}

// TestQUIC0RTT checks that 0-RTT packets get to the upstream with the ClientHello.
func TestQUIC0RTT(t *testing.T) {
	if nettest.RaceDetector {
		t.Skip("in quic-go, OpenStream before the end of the handshake and the server's transport parameters are a data race")
	}
	u := newQUICUpstream(t, "a", nil)
	s := newQUICServer(t, &Config{Routes: routesTo("a.test", u.addr())})
	tr, conf := newTransport(t), clientTLS("a.test")
	conf.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for i := range 2 {
		conn, err := tr.DialEarly(t.Context(), net.UDPAddrFromAddrPort(s.Addr()), conf, &quic.Config{})
		if err != nil {
			t.Fatal(err)
		}
		if got := ask(t, conn, 5000); got != "a" || conn.ConnectionState().Used0RTT != (i == 1) {
			t.Errorf("connection %d got to %s, 0-RTT: %v", i, got, conn.ConnectionState().Used0RTT)
		}
		if err := conn.CloseWithError(0, ""); err != nil {
			t.Error(err)
		}
	}
}

// TestQUICMigration checks that a client that migrates to another socket stays with its
// upstream, which sees another address.
func TestQUICMigration(t *testing.T) {
	u := newQUICUpstream(t, "a", nil)
	s := newQUICServer(t, &Config{Routes: routesTo("a.test", u.addr())})
	conn := dialQUIC(t, newTransport(t), s, "a.test")
	ask(t, conn, 100_000)
	upstream := <-u.conns
	before := upstream.RemoteAddr().String()
	path, err := conn.AddPath(newTransport(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := path.Probe(ctx); err != nil {
		t.Fatal(err)
	}
	if err := path.Switch(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got := ask(t, conn, 1_000_000); got != "a" {
			t.Errorf("got to %s", got)
		}
	}
	if after := upstream.RemoteAddr().String(); after == before {
		t.Errorf("the upstream sees the client at %s as before", after)
	}
	if st := s.Stats().QUIC; st.Moved != 1 || st.Accepted != 1 || st.Flows != 2 {
		t.Errorf("got %+v", st)
	}
}

// TestQUICRebinding checks that a transfer goes on when a NAT gives its client another port,
// in whichever direction most bytes go.
func TestQUICRebinding(t *testing.T) {
	u := newQUICUpstream(t, "a", nil)
	other := newQUICUpstream(t, "b", nil)
	s := newQUICServer(t, &Config{Routes: routesTo("a.test", u.addr(), "b.test", other.addr())})
	ask(t, dialQUIC(t, newTransport(t), s, "b.test"), 1000) // so that the ID has to decide
	n := newNAT(t, s.Addr())
	conn, err := tryQUIC(t, newTransport(t), n.addr(), "a.test", nil)
	if err != nil {
		t.Fatal(err)
	}
	ask(t, conn, 100_000) // the client changes its ID after the handshake
	done := make(chan error, 1)
	go func() {
		_, err := tryAsk(conn, 8<<20)
		done <- err
	}()
	for range 3 {
		relayed := s.Stats().QUIC.FromClients
		nettest.Eventually(t, "bytes", func() bool { return s.Stats().QUIC.FromClients > relayed+500_000 })
		n.rebind()
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if st := s.Stats().QUIC; st.Moved != 3 || st.Accepted != 2 {
		t.Errorf("got %+v", st)
	}
}

// nat is a NAT on loopback for one client.
type nat struct {
	t      *testing.T
	inside *net.UDPConn
	to     netip.AddrPort
	client atomic.Pointer[netip.AddrPort]
	mu     sync.Mutex // guards the following
	out    *net.UDPConn
	all    sync.WaitGroup
}

func newNAT(t *testing.T, to netip.AddrPort) *nat {
	n := &nat{t: t, inside: udpConn(t, "127.0.0.1:0"), to: to}
	n.rebind()
	n.all.Go(func() {
		buf := make([]byte, 65536)
		for {
			size, from, err := n.inside.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			n.client.Store(&from)
			n.mu.Lock()
			_, _ = n.out.WriteToUDPAddrPort(buf[:size], n.to) // a lost packet is QUIC's business
			n.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		n.inside.Close()
		n.out.Close()
		n.all.Wait()
	})
	return n
}

func (n *nat) addr() netip.AddrPort { return addrOf(n.inside) }

// rebind gives the client another port. What comes to the old one is lost.
func (n *nat) rebind() {
	out := udpConn(n.t, "127.0.0.1:0")
	n.mu.Lock()
	if n.out != nil {
		n.out.Close()
	}
	n.out = out
	n.mu.Unlock()
	n.all.Go(func() {
		buf := make([]byte, 65536)
		for {
			size, err := out.Read(buf)
			if err != nil {
				return
			}
			if to := n.client.Load(); to != nil {
				_, _ = n.inside.WriteToUDPAddrPort(buf[:size], *to)
			}
		}
	})
}
