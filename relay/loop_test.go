package relay

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/wiretest"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
)

// TestRelaysHandshakeIsNotForwarded checks that a relay does not forward packets with which
// another relay answers a handshake, whatever their IDs. Otherwise a client could make a
// handshake at another relay's address.
func TestRelaysHandshakeIsNotForwarded(t *testing.T) {
	for _, text := range []string{"\x80twelve bytes", "\x01random bytes", "8 bytes.", "a connection ID of 20"[:20]} {
		runLab(t, nil, func(l *lab) {
			alice, bob := l.peer(), l.peer()
			initial, err := cid.IDFrom([]byte(text))
			if err != nil {
				l.Fatal(err)
			}
			session := control.NewSessionID()
			join := alice.mustRegister(session, control.Register{Key: alice.key}, l.server.Token()).Join
			bob.mustRegister(session, control.Register{Role: control.Accepter, Key: bob.key, InitialID: initial}, join)
			n := uint64(0)
			for _, dst := range []cid.ID{initial, bob.key.ID(cid.Peer, 1)} {
				for _, src := range []cid.ID{cid.NewKey().ID(cid.Relay, 0), cid.NewKey().ID(cid.Relay, 1)} {
					h := wire.Header{Type: wire.Handshake, First: 0xe0, Version: wire.Version1, DstID: dst.Bytes(), SrcID: src.Bytes()}
					b, err := wiretest.AppendLong(nil, &h, []byte("payload"))
					if err != nil {
						l.Fatal(err)
					}
					alice.send(b)
					n++
				}
				negotiation := append([]byte{0xc0, 0, 0, 0, 0, byte(dst.Len())}, dst.Bytes()...)
				alice.send(append(negotiation, 1, 'x', 0, 0, 0, 1))
				n++
			}
			bob.want()
			l.dropped(DropRelayed, n)
		})
	}
}

// TestInitialIDIsForLongHeadersOnly checks that packets with short headers are not
// forwarded by an Initial's ID, which the accepter chooses.
func TestInitialIDIsForLongHeadersOnly(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.peer(), l.peer()
		initial, err := cid.IDFrom([]byte("random bytes"))
		if err != nil {
			l.Fatal(err)
		}
		session := control.NewSessionID()
		join := alice.mustRegister(session, control.Register{Key: alice.key}, l.server.Token()).Join
		bob.mustRegister(session, control.Register{Role: control.Accepter, Key: bob.key, InitialID: initial}, join)
		alice.send(append([]byte{0x40}, "random bytes and a payload"...))
		bob.want()
		l.dropped(DropUnknownID, 1)
	})
}

// plainClient makes a control connection with any connection IDs.
func (l *lab) plainClient(conn net.PacketConn, ids quic.ConnectionIDGenerator, length int) (*quic.Conn, *http3.ClientConn) {
	l.Helper()
	transport := &quic.Transport{Conn: conn, ConnectionIDGenerator: ids, ConnectionIDLength: length}
	l.Cleanup(func() { transport.Close(); conn.Close() })
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}}
	c, err := transport.Dial(context.Background(), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(relayAddr)), conf,
		&quic.Config{KeepAlivePeriod: 200 * time.Millisecond})
	if err != nil {
		l.Fatalf("connect to relay: %v", err)
	}
	l.Cleanup(func() { c.CloseWithError(0, "") })
	return c, (&http3.Transport{}).NewClientConn(c)
}

func (l *lab) get(h *http3.ClientConn) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, "https://relay/", nil)
	if err != nil {
		l.Fatal(err)
	}
	resp, err := h.RoundTrip(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// TestUnprovenAddressIsNotValidated checks that a relay does not validate the address of
// another relay. A client whose IDs the other relay would forward migrates to that address.
// The relay sends it no packets there, because no handshake was completed at that address.
func TestUnprovenAddressIsNotValidated(t *testing.T) {
	for name, test := range map[string]struct {
		role cid.Role
		want bool // moved
	}{"forwardable IDs": {cid.Peer, false}, "IDs of a peer and a relay": {cid.Relay, true}} {
		t.Run(name, func(t *testing.T) {
			runLab(t, nil, func(l *lab) {
				conn := l.net.Listen("198.51.100.77:1000")
				other := netip.MustParseAddrPort("203.0.113.5:4433")
				_, h := l.plainClient(conn, cid.NewGenerator(cid.NewKey(), test.role, nil), 0)
				if err := l.get(h); err != nil {
					l.Fatal(err)
				}
				var forwardable, all atomic.Int64
				l.net.Filter(func(p nettest.Packet) bool {
					if p.To == other {
						all.Add(1)
						if !wire.IsLong(p.Data[0]) && p.Data[1]&0x80 == 0 {
							forwardable.Add(1)
						}
					}
					return true
				})
				l.net.Rebind(conn, other.String())
				err := l.get(h)
				l.net.Filter(nil)
				if (err == nil) != test.want || (all.Load() > 0) != test.want || forwardable.Load() > 0 {
					l.Errorf("%v; sent %d packets, %d of them forwardable; dropped %d", err, all.Load(), forwardable.Load(), l.server.Stats().Dropped[DropUnproven])
				}
				if (l.server.Stats().Dropped[DropUnproven] == 0) != test.want {
					l.Errorf("dropped %d", l.server.Stats().Dropped[DropUnproven])
				}
			})
		})
	}
}

// distinctIDs generates IDs of which no two are equal, up to 256 of them. Of random IDs of one byte
// some are equal.
type distinctIDs struct{ length, n int }

func (d *distinctIDs) GenerateConnectionID() (quic.ConnectionID, error) {
	b := make([]byte, d.length)
	rand.Read(b)
	d.n++
	b[0] = byte(d.n * 37)
	return quic.ConnectionIDFromBytes(b), nil
}

func (d *distinctIDs) ConnectionIDLen() int { return d.length }

// TestPlainClients checks that an HTTP/3 client may have any connection IDs, as long as its
// address does not change.
func TestPlainClients(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		for i, length := range []int{1, 4, 8, 12, 12, 20, 20, 18, 4, 4} {
			_, h := l.plainClient(l.net.Listen(fmt.Sprintf("198.51.100.%d:1000", 100+i)), &distinctIDs{length: length}, length)
			if err := l.get(h); err != nil {
				l.Errorf("IDs of %d bytes: %v", length, err)
			}
		}
		synctest.Wait()
		if len(l.server.control.handshakes.addrs) != 10 {
			l.Errorf("%d handshake addresses, want 10", len(l.server.control.handshakes.addrs))
		}
	})
}

// TestHandshakeAddressesEnd checks that the address of a handshake is forgotten when the
// connection ends.
func TestHandshakeAddressesEnd(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		c, _ := l.plainClient(l.net.Listen("198.51.100.77:1000"), nil, 4)
		synctest.Wait()
		c.CloseWithError(0, "")
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(l.server.control.handshakes.addrs); n != 0 {
			l.Errorf("%d handshake addresses, want none", n)
		}
	})
}

// TestResetsHaveBit7 checks that stateless resets have bit 7 of the ID set, so that they
// may be sent to any address.
func TestResetsHaveBit7(t *testing.T) {
	var p handshakes
	m := &udp.Message{Data: make([]byte, resetLen), Remote: netip.MustParseAddrPort("198.51.100.1:1")}
	if m.Data[0] = 0x40; !p.maySend(m) || m.Data[1] != 0x80 {
		t.Errorf("%x", m.Data)
	}
	m.Data = append(make([]byte, 2*100), 0x40, 0)
	m.SegmentSize = 100
	m.Data[1], m.Data[101], m.Data[201] = 0x80, 0x80, 0
	if p.maySend(m) {
		t.Error("the last datagram of a train was not checked")
	}
}

// TestTrafficWithoutControlConnections checks how long packets keep legs whose control
// connections are gone. The packets may come from an attacker with a forged address, or
// circulate between two relays. So they do not count without any control connection of the
// session, and only for a while without the leg's own.
func TestTrafficWithoutControlConnections(t *testing.T) {
	const ttl = 10 * time.Second
	for name, test := range map[string]struct {
		gone     int
		kept     time.Duration // at least
		notAfter time.Duration
	}{
		"both are there": {0, 30 * ttl, 0},
		"one is gone":    {1, resumeTTLs*ttl - ttl, resumeTTLs*ttl + 3*ttl},
		"both are gone":  {2, ttl / 2, 3 * ttl},
	} {
		t.Run(name, func(t *testing.T) {
			runLab(t, &Config{TTL: ttl}, func(l *lab) {
				alice, bob := l.pair()
				for _, p := range []*peer{alice, bob}[:test.gone] {
					p.quic.CloseWithError(0, "")
				}
				start := time.Now()
				for time.Since(start) < 30*ttl {
					alice.send(bob.packet(1, "there"))
					bob.send(alice.packet(1, "back"))
					time.Sleep(time.Second)
					legs, since := l.server.Stats().Legs, time.Since(start)
					if since < test.kept && legs != 2 || test.notAfter > 0 && since > test.notAfter && legs == 2 {
						l.Fatalf("%d legs after %v", legs, since)
					}
				}
			})
		})
	}
}

// TestPacketsFromElsewhereKeepNoLeg checks that packets from another address than the leg's
// do not keep the leg alive.
func TestPacketsFromElsewhereKeepNoLeg(t *testing.T) {
	runLab(t, &Config{TTL: 10 * time.Second}, func(l *lab) {
		alice, bob := l.pair()
		alice.quic.CloseWithError(0, "")
		for range 20 {
			stray := nettest.Packet{From: netip.MustParseAddrPort("203.0.113.66:666"), To: netip.MustParseAddrPort(relayAddr), Data: bob.packet(0, "stray")}
			l.net.Inject(stray)
			wantStatus(l, "refresh", bob.refresh(), http.StatusOK)
			bob.send(alice.packet(0, "to the old address"))
			time.Sleep(time.Second)
		}
		if s := l.server.Stats(); s.Legs != 1 || s.Expired != 1 || s.ForwardedPackets < 20 {
			l.Errorf("%d legs, %d expired, %d packets, want 1, 1, and 20 at least", s.Legs, s.Expired, s.ForwardedPackets)
		}
	})
}

// TestPacketsFromElsewhereDoNotAllocate checks that packets from another address than the
// leg's cause neither allocations nor system calls.
func TestPacketsFromElsewhereDoNotAllocate(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, _ := l.pair()
		leg := &l.server.sessions.find(alice.session).legs[control.Dialer]
		from, now := netip.MustParseAddrPort("203.0.113.66:666"), time.Now()
		if n := testing.AllocsPerRun(100, func() { leg.originOf(from, 100, now) }); n != 0 {
			l.Errorf("%v allocations", n)
		}
	})
}

// TestHopLimit checks that forwarding lowers the hop limit by one, and that packets with a
// hop limit of 1 are dropped.
func TestHopLimit(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.pair()
		sh := newShard(l.server, l.server.sockets.all[0])
		sh.now = time.Now()
		for _, test := range []struct{ in, out byte }{{255, 254}, {2, 1}, {0, 0}} {
			sh.sort(&udp.Message{Data: bob.packet(0, "x"), Remote: alice.conn.Public(), HopLimit: test.in})
			if n := len(sh.out[0]); n != 1 || sh.out[0][0].HopLimit != test.out {
				l.Fatalf("hop limit %d: %+v", test.in, sh.out[0])
			}
			sh.out[0] = sh.out[0][:0]
		}
		sh.sort(&udp.Message{Data: bob.packet(0, "x"), Remote: alice.conn.Public(), HopLimit: 1})
		if len(sh.out[0]) != 0 || sh.counters.dropped[DropHopLimit].Load() != 1 {
			l.Errorf("forwarded with hop limit 1: %+v", sh.out[0])
		}
	})
}
