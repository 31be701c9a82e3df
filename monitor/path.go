package monitor

import (
	"fmt"
	"time"

	"github.com/quicway/quicway/internal/decap"
	"github.com/quicway/quicway/internal/wire"
)

// path is a pair of endpoints that a connection uses.
type path struct {
	conn      *connection
	first     int64
	sent      [2]halfPath // by the side that sends
	streak    uint64      // packets since the last pause
	key       tuple
	clientIsA bool // the client is key.a
	validated bool // packets went both ways, or the connection began here
	kind      ChangeKind
	change    uint8 // 1 + the index in conn.changes of the change to this path

	// inARow counts the client's packets (or the server's, if the client's are
	// not captured) since the path in use had one. activePackets is the packet
	// count of the path in use when inARow began.
	inARow        uint32
	activePackets uint64
}

// halfPath is what one side has sent on a path.
type halfPath struct {
	packets, bytes uint64
	ecn            ecnCounts
	first, last    int64
	gaps           float64 // the sum of the squares of the times between packets
	spin           spin
	samples        *samples // nil: the spin bit has shown no round trip
	id             ID       // the latest destination ID
	spinID         ID       // of the latest packet whose spin bit was followed
	segment        uint16   // the size of the datagrams that the system last put together
	short          bool     // there was a short header
}

// client returns the client's endpoint.
func (p *path) client() endpoint {
	if p.clientIsA {
		return p.key.a
	}
	return p.key.b
}

// server returns the server's endpoint.
func (p *path) server() endpoint {
	if p.clientIsA {
		return p.key.b
	}
	return p.key.a
}

// clientAndServer returns the endpoints of a datagram that goes to a side.
func clientAndServer(d *decap.Datagram, to wire.Side) (client, server endpoint) {
	if to == wire.Server {
		return d.Src, d.Dst
	}
	return d.Dst, d.Src
}

// sender returns the side that has sent an arrival.
func (p *path) sender(a *arrival) wire.Side { return p.side(a.fromA) }

// side returns the side that is at key.a, or at key.b.
func (p *path) side(fromA bool) wire.Side {
	if fromA == p.clientIsA {
		return wire.Client
	}
	return wire.Server
}

// sourceKeys returns the keys by which the sources table leads from the path's
// endpoints to its connection.
func (p *path) sourceKeys() [4]sourceKey {
	return [4]sourceKey{
		{server: p.server()},
		{anyPort(p.client()), p.server()},
		{client: p.client()},
		{anyPort(p.client()), anyPort(p.server())},
	}
}

// seen returns the time of the latest packet.
func (p *path) seen() int64 { return max(p.sent[0].last, p.sent[1].last) }

func (p *path) packets() uint64 { return p.sent[0].packets + p.sent[1].packets }

func (p *path) bothWays() bool { return p.sent[0].packets > 0 && p.sent[1].packets > 0 }

// add counts a datagram.
func (p *path) add(from wire.Side, now int64, length int, ecn decap.ECN) {
	p.addStreak(now, 1)
	s := &p.sent[from]
	if s.packets == 0 {
		s.first = now
	} else {
		s.addGap(now, 1)
	}
	s.last = now
	s.packets++
	s.bytes += uint64(length)
	s.ecn.count(ecn, 1)
}

// addCounted counts datagrams with short headers that the kernel has counted.
func (p *path) addCounted(from wire.Side, n Traffic, last int64) {
	s := &p.sent[from]
	if s.packets == 0 {
		s.first = last
	} else if last > s.last {
		s.addGap(last, n.Packets)
	}
	p.addStreak(last, n.Packets)
	s.short = true
	p.conn.history.addShorts(from, n.Packets)
	s.packets += n.Packets
	s.bytes += n.Bytes
	s.ecn.add(n.ECN)
	s.last = max(s.last, last)
}

// addGap notes packets that have just come. Call it before noting their time.
func (s *halfPath) addGap(at int64, packets uint64) {
	gap := float64(at - s.last)
	s.gaps += gap * gap / float64(packets)
}

// Bounds of [halfPath.pause].
const (
	leastPause   = int64(50 * time.Millisecond)
	unknownPause = int64(500 * time.Millisecond)
	pauseSample  = 8 // packets, with less of which pauses are not known
)

// pause returns how long the silence is, on average, in which a moment finds the side: a side
// that sends in bursts is mostly found between them.
func (s *halfPath) pause() int64 {
	least := leastPause
	if s.packets < pauseSample {
		least = unknownPause
	}
	if s.last <= s.first {
		return least
	}
	return max(least, int64(s.gaps/float64(s.last-s.first)))
}

// pauseBefore is pause for a side that may have stopped: the pauses of one that has sent little
// were hardly longer than all that time.
func (s *halfPath) pauseBefore() int64 {
	if s.packets < pauseSample {
		return min(max(leastPause, s.last-s.first), unknownPause)
	}
	return s.pause()
}

// streakPause is the silence that ends a streak.
const streakPause = int64(time.Second)

// addStreak counts packets that have just come. Call it before noting their time.
func (p *path) addStreak(at int64, packets uint64) {
	if at-p.seen() > streakPause {
		p.streak = 0
	}
	p.streak += packets
}

// awaitsShort reports whether the side at key.a, or at key.b, has yet to send its
// first short header.
func (p *path) awaitsShort(fromA bool) bool {
	c := p.conn
	return c.confidence >= HandshakeShaped && c.expectsShort() && !p.sent[p.side(fromA)].short
}

// likelier reports whether a short header with an unknown ID more likely belongs
// to p than to another path between the same endpoints. slack is by how much their
// times may be wrong.
func (p *path) likelier(than *path, fromA bool, slack int64) bool {
	if x, y := p.awaitsShort(fromA), than.awaitsShort(fromA); x != y {
		return x
	}
	later := p.seen() - than.seen()
	// If their times do not tell them apart, it is the one that sends more.
	return later > slack || later >= -slack && (slack == 0 || p.streak >= than.streak)
}

// addSpin follows the spin bit of the whole round trip, and of its halves: an
// edge that goes one way comes back the other (RFC 9312 §3.8.2). id is the packet's
// connection ID, as far as it is known. addSpin returns the round trip that was measured, in
// nanoseconds, or 0.
func (p *path) addSpin(now int64, from wire.Side, firstByte byte, id []byte) (rtt int64) {
	s, back := &p.sent[from].spin, &p.sent[1-from].spin
	if last := &p.sent[from].spinID; !last.is(id) {
		*last, s.renewed = idOf(id), true
	}
	before := s.edge
	edge, rtt := s.add(now, firstByte&spinBit != 0, back.edge)
	if edge && before != 0 && back.edge > before {
		s.half = now - back.edge
	}
	if rtt == 0 || s.greased() || !p.spins() {
		return 0
	}
	p.addSample(from, rtt)
	return rtt
}

// spins reports whether both ends may spin. If one of them sends packets and keeps its value, or changes it
// with its connection ID alone, while the other one changes it several times, the changes are no round trips.
func (p *path) spins() bool {
	for side := range p.sent {
		s, back := &p.sent[side].spin, &p.sent[1-side].spin
		if !s.changes() && s.packets >= spinLonePackets && back.edges >= spinLoneEdges {
			return false
		}
	}
	return true
}

// sharesID reports whether two paths have an ID in common.
func (p *path) sharesID(other *path) bool {
	for side := range p.sent {
		if id := p.sent[side].id; id.len > 0 && id == other.sent[side].id {
			return true
		}
	}
	return false
}

// kindByID returns the kind of change to a path with an ID that was in use on the
// active path.
func (c *connection) kindByID(p *path) ChangeKind {
	old := c.active
	switch {
	case old.server() != p.server():
		return PreferredAddress
	case old.client().IP == p.client().IP || sameNetwork(old.client(), p.client()):
		return Rebinding
	}
	return Migration
}

// sameNetwork reports whether two addresses are in one /24 or /64, and so may be
// those of one NAT.
func sameNetwork(a, b endpoint) bool {
	bits := 64
	if a.Addr().Is4() {
		bits = 24
	}
	x, err := a.Addr().Prefix(bits)
	if err != nil {
		return false
	}
	return a.Addr().Is4() == b.Addr().Is4() && x.Contains(b.Addr())
}

// changeLevel returns how sure a move from one path to another is.
func changeLevel(old, p *path, kind ChangeKind) Level {
	switch {
	case !p.validated:
		return Low
	case kind == Rebinding && old.client().IP == p.client().IP:
		return High
	case old.client().IP != p.client().IP && !old.sharesID(p):
		return Low // timing alone
	}
	return Medium
}

// changeEvidence describes what says that a connection has moved.
func changeEvidence(old, p *path, kind ChangeKind) string {
	ids := "new connection IDs after a probe"
	if old.sharesID(p) {
		ids = "the same connection ID"
	}
	what := "another address"
	switch {
	case kind == PreferredAddress:
		what = "the server answers at another address"
	case old.client().IP == p.client().IP:
		what = "another port of the same address"
	case sameNetwork(old.client(), p.client()):
		what = "another address of the same network"
	}
	last := old.sent[wire.Client].last
	if last == 0 { // nothing of the client was captured
		last = old.seen()
	}
	quiet := time.Duration(p.first - last).Round(time.Millisecond)
	return fmt.Sprintf("%s, %s; the path before it was silent for %v", ids, what, max(quiet, 0))
}
