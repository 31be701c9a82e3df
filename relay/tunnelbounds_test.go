package relay

import (
	"crypto/tls"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/tunnel"
)

// TestTunnelRequestTime checks that a TCP connection without a tunnel is closed when the time for
// a request is over, whatever its client has sent, and that Stats counts it until then.
func TestTunnelRequestTime(t *testing.T) {
	const again = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, test := range []struct {
		name, send string
		atOnce     bool // the relay closes the connection after its answer
	}{
		{"silence", "", false},
		{"part of a request", "GET /x HTTP/1.1\r\nHost", false},
		{"a body that does not come", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n", false},
		{"a body for the tunnel", "GET " + ownPath + " HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\n\r\n", false},
		{"another path", again, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			runLab(t, nil, func(l *lab) {
				l.serveTCP()
				raw, err := l.net.DialTCP(l.Context(), "198.51.100.1:1000", relayAddr)
				if err != nil {
					l.Fatal(err)
				}
				l.Cleanup(func() { raw.Close() })
				if test.send != "" {
					conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
					if _, err := conn.Write([]byte(test.send)); err != nil {
						l.Fatal(err)
					}
				}
				synctest.Wait()
				if s := l.server.Stats(); s.TunnelConnections != 1 || s.Tunnels != 0 {
					l.Errorf("%d TCP connections and %d tunnels, want 1 and 0", s.TunnelConnections, s.Tunnels)
				}
				wait := requestTimeout
				if test.atOnce {
					wait = 2 * time.Second
				}
				time.Sleep(wait)
				synctest.Wait()
				if s := l.server.Stats(); s.TunnelConnections != 0 {
					l.Errorf("the TCP connection is left open after %v", wait)
				}
			})
		})
	}
}

// TestTunnelWithoutControlConnection checks that a tunnel needs a control connection that is
// authenticated or waits for offers, and that no datagrams replace it.
func TestTunnelWithoutControlConnection(t *testing.T) {
	for _, test := range []struct {
		name string
		use  func(*peer)
		keep bool
	}{
		{"none", nil, false},
		{"not authenticated", func(*peer) {}, false},
		{"authenticated", func(p *peer) {
			p.mustRegister(control.NewSessionID(), control.Register{Role: control.Dialer, Key: p.key}, p.lab.server.Token())
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			runLab(t, nil, func(l *lab) {
				l.serveTCP()
				var tun *testTunnel
				var p *peer
				if test.use == nil {
					tun = l.tunnel("198.51.100.1:1000")
				} else {
					p = l.peerBy(true)
					tun = p.conn.tunnel
					test.use(p)
				}
				junk := func() {
					for range 4 {
						time.Sleep(unauthenticatedTimeout / 2)
						_, _ = tun.conn.Write(tunnel.AppendDatagram(nil, []byte{0x40}))
					}
					synctest.Wait()
				}
				junk()
				if n := l.server.Stats().Tunnels; (n == 1) != test.keep {
					l.Fatalf("%d tunnels, want it kept: %v", n, test.keep)
				}
				if !test.keep {
					return
				}
				p.quic.CloseWithError(0, "")
				junk()
				if n := l.server.Stats().Tunnels; n != 0 {
					l.Error("the tunnel is kept without its control connection")
				}
			})
		})
	}
}

// TestTunnelAddresses checks that a source may have more tunnels than there are ports, and that
// each has an address of its own, also when another one has ended.
func TestTunnelAddresses(t *testing.T) {
	ts := newTunnels(&Server{env: &env{conf: &Config{}}})
	seen := make(map[netip.AddrPort]bool)
	for i := range 1<<16 + 10 {
		c := &clientTunnel{client: netip.MustParseAddrPort("192.0.2.1:1000")}
		if !ts.add(c, nil) || seen[c.addr] {
			t.Fatalf("tunnel %d has no address of its own: %v", i, c.addr)
		}
		seen[c.addr] = true
		c.unused.Stop()
		if i%1000 == 0 {
			ts.remove(c)
		}
	}
}

// slowStore is a store of which a look-up takes until release is closed.
type slowStore struct {
	cid.Store
	asked, release chan struct{}
}

func (s *slowStore) Get(id cid.ID) (cid.Association, bool) {
	close(s.asked)
	<-s.release
	return s.Store.Get(id)
}

// TestCloseWaitsForTunnels checks that Close, before it closes the sockets, waits until a tunnel's
// packets are sorted.
func TestCloseWaitsForTunnels(t *testing.T) {
	store := &slowStore{Store: cid.NewMemoryStore(nil)}
	runLab(t, &Config{Store: store}, func(l *lab) {
		store.asked, store.release = make(chan struct{}), make(chan struct{})
		l.serveTCP()
		tun := l.tunnel("198.51.100.1:1000")
		packet := append([]byte{0x40}, cid.NewKey().ID(cid.Peer, 1).Bytes()...)
		if _, err := tun.WriteTo(packet, nil); err != nil {
			l.Fatal(err)
		}
		<-store.asked
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			l.server.tunnels.close()
		}()
		time.Sleep(time.Minute)
		select {
		case <-closed:
			l.Error("the tunnels are closed while a packet is sorted")
		default:
		}
		close(store.release)
		<-closed
	})
}
