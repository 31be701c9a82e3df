package relay

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/wiretest"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
)

func TestForwardsBothWays(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.pair()
		toBob, toAlice := bob.packet(0, "hello bob"), alice.packet(3, "hello alice")
		alice.send(toBob)
		bob.send(toAlice)
		bob.want(toBob)
		alice.want(toAlice)
		s := l.server.Stats()
		if s.ForwardedPackets != 2 || s.ForwardedBytes != uint64(len(toBob)+len(toAlice)) {
			l.Errorf("forwarded %d packets, %d bytes", s.ForwardedPackets, s.ForwardedBytes)
		}
		l.dropped(DropShort, 0)
	})
}

// TestForwardsLongHeaders checks that packets of a handshake are forwarded by the IDs of
// both legs, and by the random ID that the accepter has registered.
func TestForwardsLongHeaders(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.peer(), l.peer()
		session := control.NewSessionID()
		initial, err := cid.IDFrom([]byte("random-initial"))
		if err != nil {
			l.Fatal(err)
		}
		join := alice.mustRegister(session, control.Register{Role: control.Dialer, Key: alice.key}, l.server.Token()).Join
		to := func(dst, src cid.ID) []byte {
			h := wire.Header{Type: wire.Handshake, First: 0xe0, Version: wire.Version1, DstID: dst.Bytes(), SrcID: src.Bytes()}
			b, err := wiretest.AppendLong(nil, &h, []byte("payload"))
			if err != nil {
				l.Fatal(err)
			}
			return b
		}
		first := to(initial, alice.key.ID(cid.Peer, 0))
		alice.send(first) // arrives before the accepter has registered
		time.Sleep(100 * time.Millisecond)
		l.dropped(DropNoPeer, 1)

		bob.mustRegister(session, control.Register{Role: control.Accepter, Key: bob.key, InitialID: initial}, join)
		answer := to(alice.key.ID(cid.Peer, 0), bob.key.ID(cid.Peer, 0))
		alice.send(first)
		bob.send(answer)
		bob.want(first)
		alice.want(answer)

		time.Sleep(l.server.conf.OfferTTL + 2*sweepPeriod)
		alice.send(first)
		bob.want()
	})
}

// TestWindowFollowsTraffic checks that the relay knows the next IDs of a leg, and forgets
// old ones, while the connection changes its ID again and again.
func TestWindowFollowsTraffic(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.pair()
		var sent [][]byte
		for counter := range uint64(500) {
			p := bob.packet(counter, fmt.Sprint("packet ", counter))
			alice.send(p)
			sent = append(sent, p)
			time.Sleep(time.Millisecond)
		}
		bob.want(sent...)
		l.dropped(DropUnknownID, 0)
		alice.send(bob.packet(100, "old"))
		alice.send(bob.packet(10_000, "far ahead"))
		bob.want()
		l.dropped(DropUnknownID, 2)
		// Late packets with one of the last few IDs are still forwarded.
		late := bob.packet(499-cid.Behind, "late")
		alice.send(late)
		bob.want(late)
	})
}

// TestRefreshMovesWindow checks that a refresh moves the window over IDs that were used on
// paths that do not cross the relay.
func TestRefreshMovesWindow(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.pair()
		if status, _ := bob.register(bob.session, control.Register{Role: bob.role, Key: bob.key, Next: 700}, bob.resume); status != http.StatusOK {
			l.Fatalf("status %d", status)
		}
		next := bob.packet(705, "after the leap")
		alice.send(next)
		bob.want(next)
	})
}

// TestLegsExpire checks that a leg expires unless it is refreshed.
func TestLegsExpire(t *testing.T) {
	for _, test := range []struct {
		name string
		sign func(p *peer) // once a minute; nil: none
		want int
	}{
		{"silent", nil, 0},
		{"refreshed", func(p *peer) { p.refresh() }, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			runLab(t, &Config{TTL: 90 * time.Second}, func(l *lab) {
				p := l.peer()
				p.mustRegister(control.NewSessionID(), control.Register{Role: control.Dialer, Key: p.key}, l.server.Token())
				for range 5 {
					time.Sleep(time.Minute)
					if test.sign != nil {
						test.sign(p)
					}
				}
				if s := l.server.Stats(); s.Sessions != test.want || s.Expired != uint64(1-test.want) {
					l.Errorf("%d sessions, %d expired, want %d sessions", s.Sessions, s.Expired, test.want)
				}
			})
		})
	}
}

// TestTrafficKeepsLegs checks that a leg that sends packets does not expire, even without a
// refresh.
func TestTrafficKeepsLegs(t *testing.T) {
	runLab(t, &Config{TTL: 90 * time.Second}, func(l *lab) {
		alice, bob := l.pair()
		for range 10 {
			time.Sleep(time.Minute)
			there, back := bob.packet(1, "ping"), alice.packet(1, "pong")
			alice.send(there)
			bob.send(back)
			bob.want(there)
			alice.want(back)
		}
		time.Sleep(2 * time.Minute)
		if s := l.server.Stats(); s.Sessions != 0 || s.Expired != 2 {
			l.Errorf("%d sessions, %d expired legs, want 0 and 2", s.Sessions, s.Expired)
		}
		alice.send(bob.packet(1, "late"))
		bob.want()
	})
}

// TestGrantedTTL checks that a leg can ask for a shorter TTL than the maximum, but not for
// a longer one.
func TestGrantedTTL(t *testing.T) {
	runLab(t, &Config{TTL: 90 * time.Second}, func(l *lab) {
		for asked, want := range map[uint32]uint32{0: 90, 1: 5, 30: 30, 90: 90, 4_000_000_000: 90} {
			p := l.peer()
			if got := p.mustRegister(control.NewSessionID(), control.Register{Key: p.key, TTL: asked}, l.server.Token()).TTL; got != want {
				l.Errorf("asked for %d s, got %d, want %d", asked, got, want)
			}
		}
	})
}

// TestLegFollowsItsConnection checks that a leg moves when a NAT gives its client another
// address, without a request of the client: QUIC validates the new address of the control
// connection.
func TestLegFollowsItsConnection(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.pair()
		l.net.Rebind(bob.conn.Conn, "203.0.113.5:5555")
		lost := bob.packet(0, "to the old address")
		alice.send(lost)
		bob.want()
		if status := bob.refresh(); status != http.StatusOK {
			l.Fatalf("status %d", status)
		}
		time.Sleep(2 * sweepPeriod)
		found := bob.packet(0, "to the new one")
		alice.send(found)
		bob.want(found)
		back := alice.packet(0, "from the new one")
		bob.send(back)
		alice.want(back)
		if s := l.server.Stats(); s.Moved != 1 {
			l.Errorf("%d moves, want 1", s.Moved)
		}
	})
}

// TestRestart checks that a relay with the same secret lets legs resume after a restart,
// with the same IDs, and a relay with another secret does not.
func TestRestart(t *testing.T) {
	for name, secret := range map[string][]byte{"same secret": testSecret, "another": bytes.Repeat([]byte{8}, minSecret)} {
		t.Run(name, func(t *testing.T) {
			runLab(t, nil, func(l *lab) {
				alice, bob := l.pair()
				for counter := range uint64(100) {
					alice.send(bob.packet(counter, "before"))
					time.Sleep(time.Millisecond)
				}
				bob.arrived()
				l.stop()
				l.start(&Config{Secret: secret})
				for _, p := range []*peer{alice, bob} {
					p.transport.Close()
					p.reconnect()
					status, _ := p.register(p.session, control.Register{Role: p.role, Key: p.key, Next: 100}, p.resume)
					if name == "another" {
						wantStatus(l, "resume", status, http.StatusUnauthorized)
						continue
					}
					wantStatus(l, "resume", status, http.StatusOK)
				}
				if name == "another" {
					return
				}
				after := bob.packet(100, "after")
				alice.send(after)
				bob.want(after)
			})
		})
	}
}

// TestResumeNeedsKey checks that a resume token is of no use without the leg's key.
func TestResumeNeedsKey(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.pair()
		l.stop()
		l.start(nil)
		alice.transport.Close()
		alice.reconnect()
		status, _ := alice.register(alice.session, control.Register{Role: alice.role, Key: cid.NewKey()}, alice.resume)
		wantStatus(l, "resume with another key", status, http.StatusUnauthorized)
		status, _ = alice.register(bob.session, control.Register{Role: bob.role, Key: alice.key}, alice.resume)
		wantStatus(l, "resume the other leg", status, http.StatusUnauthorized)
	})
}

// TestResumeTokensExpire checks that resume tokens expire, so that a closed account loses
// its access, and that a used join token is still used after a restart.
func TestResumeTokensExpire(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.peer(), l.peer()
		session := control.NewSessionID()
		join := alice.mustRegister(session, control.Register{Key: alice.key}, l.server.Token()).Join
		bob.mustRegister(session, control.Register{Role: control.Accepter, Key: bob.key}, join)
		alice.mustRegister(session, control.Register{Key: alice.key}, alice.resume)
		restart := func() {
			l.stop()
			l.start(nil)
			for _, p := range []*peer{alice, bob} {
				p.transport.Close()
				p.reconnect()
			}
		}
		restart()
		wantStatus(l, "resume", alice.refresh(), http.StatusOK)
		status, _ := l.peer().register(session, control.Register{Role: control.Accepter, Key: cid.NewKey()}, join)
		wantStatus(l, "join again", status, http.StatusConflict)
		l.stop()
		time.Sleep(resumeTTLs * defaultTTL)
		l.start(nil)
		alice.transport.Close()
		alice.reconnect()
		wantStatus(l, "resume late", alice.refresh(), http.StatusUnauthorized)
	})
}

// TestTrainsAreSplitByID checks that each datagram of a GRO train is forwarded by its own
// ID, with one look-up for consecutive datagrams with the same ID.
func TestTrainsAreSplitByID(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.pair()
		sh := newShard(l.server, l.server.sockets.all[0])
		packet := func(counter uint64) []byte { return bob.packet(counter, "0123456789") }
		unknown := append([]byte{0x40}, make([]byte, 22)...)
		var train []byte
		for _, p := range [][]byte{packet(0), packet(0), packet(1), unknown, packet(2), packet(2), packet(2)[:15]} {
			train = append(train, p...)
		}
		m := udp.Message{Data: train, SegmentSize: 23, Remote: alice.conn.Public()}
		sh.sort(&m)
		if sh.counters.packets.Load() != 6 || sh.counters.dropped[DropUnknownID].Load() != 1 {
			l.Errorf("forwarded %d, dropped %d, want 6 and 1", sh.counters.packets.Load(), sh.counters.dropped[DropUnknownID].Load())
		}
		if n := sh.counters.lookups.Load(); n != 4 {
			l.Errorf("%d lookups, want 4", n)
		}
		var sizes []int
		for _, out := range sh.out[0] {
			sizes = append(sizes, len(out.Data))
		}
		if want := []int{46, 23, 61}; !slices.Equal(sizes, want) {
			l.Errorf("messages of %v bytes, want %v", sizes, want)
		}
	})
}

// TestForwardDoesNotAllocate checks that forwarding a packet does not allocate.
func TestForwardDoesNotAllocate(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.pair()
		sh := newShard(l.server, l.server.sockets.all[0])
		sh.now = time.Now()
		m := udp.Message{Data: bytes.Repeat(bob.packet(0, "payload"), 10), SegmentSize: 20, Remote: alice.conn.Public()}
		if n := testing.AllocsPerRun(100, func() {
			sh.sort(&m)
			sh.out[0] = sh.out[0][:0]
		}); n != 0 {
			l.Errorf("%v allocations", n)
		}
	})
}

// FuzzSort checks that each datagram is forwarded, handed to the relay's own QUIC or
// dropped, and counted exactly once.
func FuzzSort(f *testing.F) {
	server, err := New(&Config{Secret: testSecret}, nettest.New(1).Listen(relayAddr))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { server.Close() })
	key := cid.Key{1}
	ses, err := server.sessions.open(control.SessionID{1}, accountTag{}, uncounted)
	if err != nil {
		f.Fatal(err)
	}
	remote := netip.MustParseAddrPort("198.51.100.1:1")
	for role := range control.Role(2) {
		l := &ses.legs[role]
		l.present, l.window = true, cid.NewWindow(0)
		l.setKeyLocked(key)
		l.addr.Store(&legAddr{remote: remote})
	}
	ses.legs[control.Accepter].renewLocked(time.Now())
	known := append([]byte{0x40}, key.ID(cid.Peer, 0).Bytes()...)
	f.Add(bytes.Repeat(append(known, "payload"...), 3), 20)
	f.Add(append([]byte{0xc0, 0, 0, 0, 1, 12}, append(known[1:], 0, 0, 0)...), 0)
	f.Add(append([]byte{0x40, 0x80}, make([]byte, 30)...), 0)
	f.Fuzz(func(t *testing.T, data []byte, segment int) {
		sh := newShard(server, server.sockets.all[0])
		sh.now = time.Now()
		m := udp.Message{Data: data, SegmentSize: max(segment, 0), Remote: remote}
		if len(data) == 0 || len(data) > udpTrain || m.Count() > 64 {
			return
		}
		sh.sort(&m)
		c := sh.counters
		got := c.packets.Load() + c.control.Load()
		for i := range c.dropped {
			got += c.dropped[i].Load()
		}
		if got != uint64(m.Count()) {
			t.Errorf("%d packets counted of %d", got, m.Count())
		}
		n := 0
		for _, out := range sh.out[0] {
			n += out.Count()
		}
		if n != int(c.packets.Load()) {
			t.Errorf("%d packets queued of %d", n, c.packets.Load())
		}
	})
}

// udpTrain is the maximum size of a message that a socket reads.
const udpTrain = 65535

// TestManyFlows checks that interleaved packets of many sessions arrive at the right legs,
// in order.
func TestManyFlows(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		const flows, each = 10, 20
		type pair struct{ from, to *peer }
		var pairs []pair
		for range flows {
			a, b := l.pair()
			pairs = append(pairs, pair{a, b}, pair{b, a})
		}
		rng := rand.New(rand.NewPCG(1, 1))
		sent := make(map[*peer][][]byte)
		for range each * len(pairs) {
			p := pairs[rng.IntN(len(pairs))]
			packet := p.to.packet(uint64(rng.IntN(cid.Ahead/2)), fmt.Sprint(rng.Uint64()))
			p.from.send(packet)
			sent[p.to] = append(sent[p.to], packet)
			time.Sleep(time.Millisecond) // the network does not keep the order of packets at the same time
		}
		for _, p := range pairs {
			p.to.want(sent[p.to]...)
		}
	})
}
