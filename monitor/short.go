package monitor

import "github.com/quicway/quicway/internal/wire"

// Bits of the first byte of a short header (RFC 9000 §17.3.1).
const (
	fixedBit = 0x40
	spinBit  = 0x20
)

// minShort is the least length of a packet with a short header without its ID:
// the first byte, and what header protection needs (RFC 9001 §5.4.2).
const minShort = 1 + 4 + 16

// shortHeader takes a datagram between known endpoints that begins with a short
// header, or is not QUIC. It returns false if it belongs to no connection.
func (t *Tracker) shortHeader(a *arrival) bool {
	p := a.flow.choose(a, t.index.slack)
	c, from := p.conn, p.sender(a)
	if c.confidence == GoogleQUIC {
		c.history.addShort(from)
		if v, ok := wire.GoogleVersion(a.payload); ok && c.handshake != nil { // more of the CHLO
			t.initials.google(a, p, v)
		}
		t.count(a, p)
		return true
	}
	if p != c.active && t.short.strange(a, p, from) {
		return t.unknownFlow(a)
	}
	if !t.acceptID(a, p, from) {
		t.counters.Bogus++
		return false
	}
	t.count(a, p)
	if c = p.conn; c.move != nil && from == wire.Client {
		t.moves.packet(a, c.move)
	}
	p.sent[from].short = true
	c.history.addShort(from)
	t.spin(a, p, a.payload)
	if from == wire.Client && c.confirm(a.now) {
		t.counters.handshakes.add(c)
		t.events.handshakeRTT(c)
	}
	if p != c.active || !p.validated {
		t.evaluate(a, p, from)
	}
	return true
}

// unknownFlow takes a datagram without a long header between unknown endpoints. It
// returns false if it belongs to no connection.
func (t *Tracker) unknownFlow(a *arrival) bool {
	if v, ok := wire.GoogleVersion(a.payload); ok {
		return t.countFound(a, t.long.google(a, v))
	}
	p, moved := t.short.match(a)
	if p == nil {
		return false
	}
	t.count(a, p)
	if moved {
		t.spin(a, p, a.payload)
	}
	return true
}

// acceptID reports whether a short header may have the ID that it has on a path.
func (t *Tracker) acceptID(a *arrival, p *path, from wire.Side) bool {
	n := max(int(p.conn.ids[1-from].length), 0) // nothing is known: no ID
	if len(a.payload) < n+minShort {
		return false
	}
	if n == 0 {
		// Without an ID only the fixed bit tells it from other protocols on the
		// port.
		return a.payload[0]&fixedBit != 0
	}
	id := a.payload[1 : 1+n]
	return p.sent[from].id.is(id) || t.changeID(a, p, from, id)
}

// changeID takes an ID other than the one in use. It accepts IDs that the side is
// known to have. It accepts an unknown one as a new ID of the side if the fixed
// bit is set, and keeps it once two packets have had it.
func (t *Tracker) changeID(a *arrival, p *path, from wire.Side, id []byte) bool {
	c, inUse := p.conn, &p.sent[from].id
	ids := &c.ids[1-from]
	if c.knows(1-from, id) {
		if inUse.len > 0 && !c.isOrigID(inUse.bytes[:inUse.len]) {
			c.rotations++
		}
		*inUse = idOf(id)
		return true
	}
	if !ids.seenOnce.is(id) {
		if a.payload[0]&fixedBit == 0 || !c.expectsShort() && !c.silent(1-from) {
			return false
		}
		ids.seenOnce = idOf(id)
		return true
	}
	known := ids.seenOnce
	t.moves.byID(c, 1-from, known, a.now)
	c = p.conn // a decision may have changed it
	c.rotations++
	t.index.learnID(c, 1-from, known, a.now)
	*inUse = known
	return true
}

// spin follows the spin bit of a packet with a short header.
func (t *Tracker) spin(a *arrival, p *path, packet []byte) {
	from := p.sender(a)
	n := max(int(p.conn.ids[1-from].length), 0)
	if rtt := p.addSpin(a.now, from, packet[0], packet[1:min(1+n, len(packet))]); rtt != 0 {
		t.events.spinRTT(p.conn, rtt)
	}
}
