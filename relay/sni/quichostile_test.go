package sni

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/quicway/quicway/internal/monotime"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
	"github.com/quicway/quicway/quota"
)

// steal sends a packet from a socket. If that opens a flow, the upstream answers, and the socket
// sends the packet once more: then the flow is confirmed. It returns how the upstream sees the
// flow, and false if there is none.
func (p *pair) steal(t *testing.T, thief *net.UDPConn, packet []byte) (from netip.AddrPort, ok bool) {
	p.Helper()
	before := p.s.Stats().QUIC
	send(p, thief, p.s.Addr(), packet)
	nettest.Eventually(t, "the flow or the drop", func() bool {
		now := p.s.Stats().QUIC
		ok = now.Moved > before.Moved
		return ok || now.Dropped[DropFull] > before.Dropped[DropFull]
	})
	if !ok {
		return from, false
	}
	_, from = recv(p, p.upstream)
	send(p, p.upstream, from, shortPacket(testID(8), 50)) // as a stateless reset
	recv(p, thief)
	send(p, thief, p.s.Addr(), packet)
	recv(p, p.upstream)
	return from, true
}

// wantFlow checks that a packet from a socket comes by a flow.
func (p *pair) wantFlow(client *net.UDPConn, from netip.AddrPort) {
	p.Helper()
	send(p, client, p.s.Addr(), shortPacket(p.chosen, 1200))
	if _, got := recv(p, p.upstream); got != from {
		p.Errorf("the owner's packets come from %v, before from %v", got, from)
	}
}

// TestQUICConfirmedThieves checks that flows of others from the same host, which the upstream
// answers, do not end that of the owner: at its first address, or after a move.
func TestQUICConfirmedThieves(t *testing.T) {
	for name, c := range map[string]struct{ knowID, moved bool }{
		"unknown IDs": {}, "the owner's ID": {knowID: true}, "unknown IDs after a move": {moved: true},
	} {
		t.Run(name, func(t *testing.T) {
			s, upstream := plainServer(t, Config{})
			owner := newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0")).confirm()
			client, from := owner.client, owner.from
			if c.moved {
				client = udpConn(t, "127.0.0.1:0")
				from, _ = owner.steal(t, client, shortPacket(testID(8), 100))
			}
			for range 3 * maxPaths {
				id := testID(8)
				if c.knowID {
					id = owner.chosen
				}
				owner.steal(t, udpConn(t, "127.0.0.1:0"), shortPacket(id, 100))
			}
			if n := s.Stats().QUIC.Flows; n != maxPaths {
				t.Errorf("%d flows, want %d", n, maxPaths)
			}
			owner.wantFlow(client, from)
		})
	}
}

// TestQUICGathered checks that a client that moves many connections to one address does not get
// more flows there than an address may have.
func TestQUICGathered(t *testing.T) {
	s, upstream := plainServer(t, Config{})
	port := udpConn(t, "127.0.0.1:0")
	const more = 4
	for i := range maxPeerFlows + more {
		p := newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0")).confirm()
		if _, ok := p.steal(t, port, shortPacket(p.chosen, 100)); ok != (i < maxPeerFlows) {
			t.Errorf("connection %d has moved: %v", i, ok)
		}
	}
	drain(upstream)
	before := s.Stats().QUIC.DatagramsFromClients
	send(t, port, s.Addr(), shortPacket(testID(8), 100))
	nettest.Eventually(t, "the datagram", func() bool { return s.Stats().QUIC.DatagramsFromClients > before })
	if n := s.Stats().QUIC.DatagramsFromClients - before; n > maxPeerFlows {
		t.Errorf("an unknown ID went to %d flows", n)
	}
}

// TestQUICCheapAttempts checks that attempts that begin with a 0-RTT packet, and flows of unknown
// IDs, take free places only, and those of an Initial get one.
func TestQUICCheapAttempts(t *testing.T) {
	s, upstream := plainServer(t, Config{MaxWaitingPerSource: 2})
	newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0")).confirm()
	first := udpConn(t, "127.0.0.1:0")
	parts := initials(t, wire.Version1, testID(8), quicHello(t, "a.test"), 2)
	send(t, first, s.Addr(), parts[0])
	send(t, udpConn(t, "127.0.0.1:0"), s.Addr(), longPacket(wire.Version1, 1, testID(8), []byte("clnt"), 100))
	nettest.Eventually(t, "the attempts", func() bool { return s.Stats().QUIC.Waiting == 2 })
	for i := range 5 {
		send(t, udpConn(t, "127.0.0.1:0"), s.Addr(), longPacket(wire.Version1, 1, testID(8), []byte("clnt"), 100))
		send(t, udpConn(t, "127.0.0.1:0"), s.Addr(), shortPacket(testID(8), 100))
		nettest.Eventually(t, "the refusals", func() bool { return s.Stats().QUIC.Dropped[DropFull] == uint64(2*i+2) })
	}
	if st := s.Stats().QUIC; st.Failed[WaitingFull] != 5 || st.Waiting != 2 || st.Moved != 0 {
		t.Errorf("got %+v", st)
	}
	send(t, first, s.Addr(), parts[1])
	recv(t, upstream)
	recv(t, upstream)
	newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0"))
}

// sortAt gives the shard of a server a message as if it came at a time.
func sortAt(s *Server, at endpoints, now int64, data []byte, segment int) {
	s.quic.shards[0].batch(now, []udp.Message{{Data: data, SegmentSize: segment, Remote: at.client, Local: at.relay}})
}

// TestQUICFailedAreForgotten checks that an attempt which fails at once takes no memory until the next
// sweep, since it does not count among those that wait.
func TestQUICFailedAreForgotten(t *testing.T) {
	s, _ := plainServer(t, Config{})
	at := endpoints{relay: s.QUICAddr().Addr()}
	for i := range 100 {
		at.client = netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(10_000+i))
		sortAt(s, at, monotime.Now(), initials(t, wire.Version1, testID(8), quicHello(t, "nowhere.test"), 1)[0], 0)
	}
	if n := s.Stats().QUIC.Failed[NoRoute]; n != 100 {
		t.Errorf("%d attempts have failed, want 100", n)
	}
	sh := s.quic.shards[0]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if len(sh.peers) != 0 {
		t.Errorf("%d are not forgotten", len(sh.peers))
	}
}

// endpointsOf returns the endpoints of the flows of a client.
func endpointsOf(t *testing.T, s *Server, client *net.UDPConn) (at endpoints) {
	t.Helper()
	sh := s.quic.shards[0]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for at = range sh.peers {
		if at.client == addrOf(client) {
			return at
		}
	}
	t.Fatal("the client has no flow")
	return at
}

// TestQUICMixedTrain checks that a train of datagrams of two connections is taken apart, at the
// address of both, and at one to which they move.
func TestQUICMixedTrain(t *testing.T) {
	s, upstream := plainServer(t, Config{Shards: 1})
	client := udpConn(t, "127.0.0.1:0")
	a := newPair(t, s, upstream, "a.test", client).confirm()
	b := newPair(t, s, upstream, "a.test", client).confirm()
	train := bytes.Join([][]byte{shortPacket(a.chosen, 100), shortPacket(b.chosen, 100), shortPacket(a.chosen, 100)}, nil)
	here := endpointsOf(t, s, client)
	there := here
	there.client = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 9)
	for name, at := range map[string]endpoints{"same address": here, "other address": there} {
		sortAt(s, at, monotime.Now(), train, 100)
		sources := make(map[string]map[netip.AddrPort]int)
		for range 3 {
			data, from := recv(t, upstream)
			id := string(data[1:9])
			if sources[id] == nil {
				sources[id] = make(map[netip.AddrPort]int)
			}
			sources[id][from]++
		}
		ofA, ofB := sources[string(a.chosen)], sources[string(b.chosen)]
		if len(ofA) != 1 || len(ofB) != 1 {
			t.Fatalf("%s: got %v", name, sources)
		}
		for from := range ofA {
			if ofB[from] > 0 || at == here && from != a.from {
				t.Errorf("%s: datagrams of both connections come from %v", name, from)
			}
		}
	}
}

// TestQUICGuesses checks where an ID that is not known goes from an address with two connections:
// nowhere before they are confirmed, then to both, and only to one when the other has used its
// own ID for a while.
func TestQUICGuesses(t *testing.T) {
	s, upstream := plainServer(t, Config{Shards: 1})
	client := udpConn(t, "127.0.0.1:0")
	a := newPair(t, s, upstream, "a.test", client)
	b := newPair(t, s, upstream, "a.test", client)
	send(t, client, s.Addr(), shortPacket(testID(8), 100))
	nettest.Eventually(t, "the drop", func() bool { return s.Stats().QUIC.Dropped[DropUnknownID] == 1 })
	a.confirm()
	b.confirm()
	at, now, unknown := endpointsOf(t, s, client), monotime.Now(), shortPacket(testID(8), 100)
	sortAt(s, at, now, unknown, 0)
	recv(t, upstream)
	recv(t, upstream)
	sortAt(s, at, now+maxReorder+1, shortPacket(a.chosen, 100), 0)
	recv(t, upstream)
	sortAt(s, at, now+maxReorder+2, unknown, 0)
	if _, from := recv(t, upstream); from != b.from {
		t.Errorf("the datagram comes from %v, want %v", from, b.from)
	}
	wantSilence(t, "the upstream", upstream)
}

// TestQUICEndedStaysEnded checks that a connection whose last flow has ended gets no other one.
func TestQUICEndedStaysEnded(t *testing.T) {
	s, upstream := plainServer(t, Config{Shards: 1})
	client := udpConn(t, "127.0.0.1:0")
	newPair(t, s, upstream, "a.test", client).confirm()
	at, sh, q := endpointsOf(t, s, client), s.quic.shards[0], s.quic
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c := sh.peers[at].flows[0].conn
	fresh := &quicConn{fresh: true, hello: c.hello, route: c.route, at: c.at}
	first := sh.newMoved(at, fresh)
	if _, ok := q.addMoved(first); !ok {
		t.Fatal("the first flow is refused")
	}
	q.end(first, ServerClosed)
	q.endConn(c)
	for name, ended := range map[string]*quicConn{"known": c, "found elsewhere": fresh} {
		if _, ok := q.addMoved(sh.newMoved(at, ended)); ok {
			t.Errorf("%s: the connection has a flow again", name)
		}
	}
}

// TestQUICQuotaEndsAllPaths checks that a connection that the quota refuses, when its client has
// shown its address, loses all its flows.
func TestQUICQuotaEndsAllPaths(t *testing.T) {
	controller, err := quota.New(&quota.Config{Source: quota.Limits{Connections: 1, HalfOpen: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer controller.Close()
	s, upstream := plainServer(t, Config{Quota: controller})
	p := newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0"))
	p.chosen = testID(8)
	send(t, upstream, p.from, longPacket(wire.Version1, 2, []byte("clnt"), p.chosen, 1200))
	recv(t, p.client)
	for range 4 { // presumed: with other IDs
		send(t, p.client, s.Addr(), shortPacket(testID(8), 100))
		recv(t, upstream)
		send(t, upstream, p.from, shortPacket([]byte("clnt"), 50))
		recv(t, p.client)
	}
	nettest.Eventually(t, "the confirmation", func() bool { return s.Stats().QUIC.Relayed == 1 })
	p.steal(t, udpConn(t, "127.0.0.1:0"), shortPacket(p.chosen, 100))
	if n := s.Stats().QUIC.Flows; n != 2 {
		t.Fatalf("%d flows, want 2", n)
	}
	s.quic.table.mu.Lock()
	for f := range s.quic.table.flows {
		f.conn.slot.Release() // so that the quota refuses it
	}
	s.quic.table.mu.Unlock()
	send(t, p.client, s.Addr(), longPacket(wire.Version1, 2, p.chosen, []byte("clnt"), 100))
	nettest.Eventually(t, "the end of both flows", func() bool { return s.Stats().QUIC.Flows == 0 })
}
