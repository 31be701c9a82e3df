package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/tunnel"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/quota"
)

// testTunnel is a client's end of a tunnel, as a net.PacketConn.
type testTunnel struct {
	raw      net.Conn
	conn     *tls.Conn
	capsules *tunnel.Reader
	rest     [][]byte
	stopped  atomic.Bool   // it reads no more
	resume   chan struct{} // ends that
}

func (t *testTunnel) WriteTo(b []byte, _ net.Addr) (int, error) {
	_, err := t.conn.Write(tunnel.AppendDatagram(nil, b))
	return len(b), err
}

func (t *testTunnel) ReadFrom(b []byte) (int, net.Addr, error) {
	for len(t.rest) == 0 {
		if t.stopped.Load() {
			<-t.resume
		}
		out := make([]udp.Message, 8)
		n, err := t.capsules.Read(out)
		if err != nil {
			return 0, nil, err
		}
		for i := range out[:n] {
			t.rest = slices.AppendSeq(t.rest, out[i].Segments())
		}
	}
	n := copy(b, t.rest[0])
	t.rest = t.rest[1:]
	return n, nettest.UDPAddr(netip.MustParseAddrPort(relayAddr)), nil
}

// serveTCP makes the relay accept tunnels.
func (l *lab) serveTCP() {
	l.Helper()
	served := make(chan error, 1)
	listener := l.net.ListenTCP(relayAddr)
	go func() { served <- l.server.ServeTCP(listener) }()
	synctest.Wait()
	l.Cleanup(func() {
		if err := <-served; !errors.Is(err, ErrClosed) {
			l.Errorf("ServeTCP returned %v, want ErrClosed", err)
		}
	})
}

// ask asks the relay for a tunnel, as an HTTP/1.1 client from an address.
func (l *lab) ask(from, path string, change func(*http.Request)) (*testTunnel, *http.Response, error) {
	l.Helper()
	raw, err := l.net.DialTCP(l.Context(), from, relayAddr)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { raw.Close() })
	t := &testTunnel{raw: raw, resume: make(chan struct{}), conn: tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})}
	req, err := http.NewRequest("GET", "https://"+relayAddr+path, nil)
	if err != nil {
		l.Fatal(err)
	}
	tunnel.SetUpgrade(req.Header)
	if change != nil {
		change(req)
	}
	if err := req.Write(t.conn); err != nil {
		return nil, nil, err
	}
	r := bufio.NewReader(t.conn)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, nil, err
	}
	t.capsules = tunnel.NewReader(r)
	return t, resp, nil
}

// ownPath is the path of the request for a tunnel to the relay.
var ownPath = tunnel.Path("192.0.2.1", 4433)

// tunnel opens a tunnel.
func (l *lab) tunnel(from string) *testTunnel {
	l.Helper()
	t, resp, err := l.ask(from, ownPath, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		l.Fatalf("no tunnel: %v, %v", resp, err)
	}
	return t
}

// TestTunnelForwards checks that packets pass between legs in tunnels and legs on UDP, as far
// as source pinning allows, and that the legs have the address of the TCP connection.
func TestTunnelForwards(t *testing.T) {
	for _, in := range [][2]bool{{true, false}, {false, true}, {true, true}} {
		t.Run(fmt.Sprint(in), func(t *testing.T) {
			runLab(t, nil, func(l *lab) {
				l.serveTCP()
				a, b := l.peerBy(in[0]), l.peerBy(in[1])
				session := control.NewSessionID()
				reply := a.mustRegister(session, control.Register{Role: control.Dialer, Key: a.key}, l.server.Token())
				b.mustRegister(session, control.Register{Role: control.Accepter, Key: b.key}, reply.Join)
				if want := a.conn.Public(); reply.Observed != want {
					l.Errorf("the relay sees %v, want %v", reply.Observed, want)
				}
				for s := range l.server.Sessions() {
					for i, leg := range s.Legs {
						if want := []*peer{a, b}[i].conn.Public(); leg.Remote != want || leg.Tunneled != in[i] {
							l.Errorf("leg %d is at %v (tunneled: %v), want %v", i, leg.Remote, leg.Tunneled, want)
						}
					}
				}
				a.send(b.packet(0, "to b"))
				b.send(a.packet(0, "to a"))
				a.want(a.packet(0, "to a"))
				b.want(b.packet(0, "to b"))
				stranger := l.tunnel("203.0.113.9:1")
				for range rebindBudget + 10 {
					if _, err := stranger.WriteTo(b.packet(0, "forged"), nil); err != nil {
						l.Fatal(err)
					}
				}
				if got := len(b.arrived()); got != rebindBudget {
					l.Errorf("%d packets of a stranger arrived, want %d", got, rebindBudget)
				}
				l.dropped(DropWrongSource, 10)
			})
		})
	}
}

// TestTunnelEnds checks that packets to a tunnel that has ended are counted, and that its leg
// can come back by UDP, and the kernel is only told of legs that are not in a tunnel.
func TestTunnelEnds(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		o := &legsOffload{}
		l.stop()
		l.offload = o
		l.start(nil)
		l.serveTCP()
		a, b := l.peerBy(true), l.peer()
		session := control.NewSessionID()
		join := a.mustRegister(session, control.Register{Role: control.Dialer, Key: a.key}, l.server.Token()).Join
		b.mustRegister(session, control.Register{Role: control.Accepter, Key: b.key}, join)
		if o.legs[0].Valid() || !o.legs[1].Valid() {
			l.Errorf("the kernel knows the legs %v, want only the second", o.legs)
		}
		a.conn.tunnel.raw.Close()
		b.send(a.packet(0, "lost"))
		a.arrived()
		if l.server.Stats().Dropped[DropTunnel] == 0 {
			l.Error("a packet to a tunnel that has ended is not counted")
		}
		a.transport.Close()
		a.conn.tunnel = nil
		a.reconnect()
		wantStatus(l, "refresh", a.refresh(), http.StatusOK)
		b.send(a.packet(0, "by UDP"))
		a.want(a.packet(0, "by UDP"))
		if s := l.server.Stats(); s.Tunnels != 0 || !o.legs[0].Valid() {
			l.Errorf("%d tunnels are left, and the kernel knows %v", s.Tunnels, o.legs)
		}
	})
}

// legsOffload is an offload that remembers the legs of the last session.
type legsOffload struct {
	noOffload
	legs [2]datapath.Leg
}

func (o *legsOffload) putSession(_ uint64, legs [2]datapath.Leg) { o.legs = legs }

// TestTunnelTargets checks that a tunnel leads nowhere but to the relay.
func TestTunnelTargets(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		l.serveTCP()
		for _, test := range []struct {
			what, path string
			change     func(*http.Request)
			status     int
		}{
			{"own address", ownPath, nil, http.StatusSwitchingProtocols},
			{"name of the relay", tunnel.Path("relay.example", 4433), host("relay.example:443"), http.StatusSwitchingProtocols},
			{"port behind a NAT", tunnel.Path("relay.example", 8000), host("relay.example:8000"), http.StatusSwitchingProtocols},
			{"IPv6", tunnel.Path("2001:db8::1", 4433), host("[2001:db8::1]:4433"), http.StatusSwitchingProtocols},
			{"another host", tunnel.Path("192.0.2.9", 4433), nil, http.StatusForbidden},
			{"another name", tunnel.Path("relay.example", 4433), host("relay.test:4433"), http.StatusForbidden},
			{"another port", tunnel.Path("192.0.2.1", 53), nil, http.StatusForbidden},
			{"loopback", tunnel.Path("127.0.0.1", 4433), nil, http.StatusForbidden},
			{"no port", "/.well-known/masque/udp/192.0.2.1/x/", nil, http.StatusForbidden},
			{"large port", "/.well-known/masque/udp/192.0.2.1/69969/", nil, http.StatusForbidden},
			{"another path", "/v1/events", nil, http.StatusNotFound},
			{"no upgrade", ownPath, func(r *http.Request) { r.Header.Del("Upgrade") }, http.StatusUpgradeRequired},
			{"websocket", ownPath, func(r *http.Request) { r.Header.Set("Upgrade", "websocket") }, http.StatusUpgradeRequired},
			{"CONNECT", "", func(r *http.Request) { r.Method, r.URL.Opaque, r.Host = "CONNECT", "192.0.2.9:25", "192.0.2.9:25" }, http.StatusNotFound},
		} {
			tun, resp, err := l.ask("198.51.100.1:1000", test.path, test.change)
			if err != nil {
				l.Errorf("%s: %v", test.what, err)
				continue
			}
			if resp.StatusCode != test.status {
				l.Errorf("%s: %s, want %d", test.what, resp.Status, test.status)
			}
			tun.raw.Close()
			synctest.Wait()
		}
		if s := l.server.Stats(); s.TunnelsRefused != 6 {
			l.Errorf("%d refused, want 6", s.TunnelsRefused)
		}
	})
}

func host(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }

// TestTunnelsAreBounded checks the bounds of all tunnels, of a site and of a source.
func TestTunnelsAreBounded(t *testing.T) {
	runLab(t, &Config{MaxTunnels: 8}, func(l *lab) {
		l.serveTCP()
		open := func(host int) *testTunnel {
			tun, _, err := l.ask(fmt.Sprintf("198.51.100.%d:1000", host), ownPath, nil)
			if err != nil {
				return nil
			}
			return tun
		}
		for i := range 8 {
			if open(1+i/2) == nil {
				l.Fatalf("tunnel %d is refused", i)
			}
			if i == 1 && open(1) != nil {
				l.Error("a source has more than a quarter")
			}
		}
		if open(9) != nil {
			l.Error("there are more than MaxTunnels")
		}
		if s := l.server.Stats(); s.Tunnels != 8 || s.TunnelsRefused != 2 {
			l.Errorf("%d tunnels, %d refused, want 8 and 2", s.Tunnels, s.TunnelsRefused)
		}
		time.Sleep(tunnelIdle + 2*time.Second)
		if s := l.server.Stats(); s.Tunnels != 0 {
			l.Errorf("%d idle tunnels are left", s.Tunnels)
		}
		if open(1) == nil {
			l.Error("the place of a tunnel has not come back")
		}
	})
}

// TestTunnelNeverReads checks that a client that does not read its tunnel loses packets and then
// the tunnel, and does not stop the relay.
func TestTunnelNeverReads(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		l.serveTCP()
		a, b := l.peerBy(true), l.peer()
		session := control.NewSessionID()
		join := a.mustRegister(session, control.Register{Role: control.Dialer, Key: a.key}, l.server.Token()).Join
		b.mustRegister(session, control.Register{Role: control.Accepter, Key: b.key}, join)
		c, d := l.pair()
		defer close(a.conn.tunnel.resume)
		a.conn.tunnel.stopped.Store(true)
		for range 2000 {
			b.send(a.packet(0, strings.Repeat("x", 1000)))
		}
		c.send(d.packet(0, "another session"))
		d.want(d.packet(0, "another session"))
		if n := l.server.Stats().Dropped[DropTunnel]; n < 500 {
			l.Errorf("%d packets were dropped, of 2 MB", n)
		}
		time.Sleep(15 * time.Second)
		if s := l.server.Stats(); s.Tunnels != 0 {
			l.Error("the tunnel is left open")
		}
	})
}

// TestTunnelIsNoAmplifier checks that a tunnel gets three times of what it has sent, as UDP does,
// as long as its client has not completed a handshake.
func TestTunnelIsNoAmplifier(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		l.serveTCP()
		tun := l.tunnel("198.51.100.1:1000")
		first := &mutedConn{testTunnel: tun, Conn: l.net.Listen("198.51.100.1:1000")}
		transport := &quic.Transport{Conn: first}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := transport.Dial(ctx, nettest.UDPAddr(netip.MustParseAddrPort(relayAddr)), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}, nil)
		if err == nil {
			l.Error("the handshake is complete without the client's second flight")
		}
		transport.Close()
		if first.got == 0 || first.got > 3*first.sent {
			l.Errorf("got %d bytes for %d", first.got, first.sent)
		}
	})
}

// mutedConn is a tunnel that sends only the first datagram.
type mutedConn struct {
	*testTunnel
	*nettest.Conn
	sent, got int
}

func (c *mutedConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if c.sent > 0 {
		return len(b), nil
	}
	c.sent += len(b)
	return c.testTunnel.WriteTo(b, to)
}

func (c *mutedConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, _, err := c.testTunnel.ReadFrom(b)
	c.got += n
	if err == nil { // quic-go does not get it, so that it does not answer
		return 0, nettest.UDPAddr(netip.MustParseAddrPort(relayAddr)), nil
	}
	return n, nil, err
}

func (c *mutedConn) SetReadDeadline(t time.Time) error { return c.raw.SetReadDeadline(t) }

// TestTunnelForgedAddress checks that nobody can send by UDP as if from a tunnel.
func TestTunnelForgedAddress(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		l.serveTCP()
		a, b := l.peerBy(true), l.peer()
		session := control.NewSessionID()
		join := a.mustRegister(session, control.Register{Role: control.Dialer, Key: a.key}, l.server.Token()).Join
		b.mustRegister(session, control.Register{Role: control.Accepter, Key: b.key}, join)
		l.server.tunnels.mu.RLock()
		for addr := range l.server.tunnels.open {
			l.net.Inject(nettest.Packet{From: addr, To: netip.MustParseAddrPort(relayAddr), Data: b.packet(0, "forged")})
		}
		l.server.tunnels.mu.RUnlock()
		b.want()
		l.dropped(DropWrongSource, 1)
	})
}

// TestTunnelMalformed checks that a malformed capsule ends a tunnel.
func TestTunnelMalformed(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		l.serveTCP()
		tun := l.tunnel("198.51.100.1:1000")
		if _, err := tun.conn.Write([]byte{0, 0}); err != nil {
			l.Fatal(err)
		}
		if _, _, err := tun.ReadFrom(nil); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			l.Errorf("read after a malformed capsule: %v", err)
		}
		if s := l.server.Stats(); s.Tunnels != 0 {
			l.Error("the tunnel is left open")
		}
	})
}

// TestTunnelQuota checks that the quota knows the clients of tunnels by the addresses of their TCP
// connections.
func TestTunnelQuota(t *testing.T) {
	controller := newQuota(t, &quota.Config{Source: quota.Limits{Connections: 3}})
	runLab(t, &Config{Quota: controller}, func(l *lab) {
		l.serveTCP()
		l.peerBy(true) // a TCP connection, and a control connection in it
		l.peerBy(true)
		for _, want := range []bool{true, false} {
			_, _, err := l.ask("198.51.100.1:1001", ownPath, nil)
			if got := err == nil; got != want {
				l.Errorf("another tunnel of the first client: %v, want %v", got, want)
			}
		}
	})
}

// TestTunnelSource checks that limits count the address of a tunnel as the source of its client.
func TestTunnelSource(t *testing.T) {
	for _, addr := range []string{"192.0.2.7", "2001:db8:1:2:3:4:5:6"} {
		client := netip.MustParseAddr(addr)
		at := tunnel.Address(netip.AddrPortFrom(client, 9), 1<<40).Addr()
		if sourceOf(at) != sourceOf(client) || siteOf(at) != siteOf(client) {
			t.Errorf("%v counts for %v and %v, want %v and %v", at, sourceOf(at), siteOf(at), sourceOf(client), siteOf(client))
		}
	}
}
