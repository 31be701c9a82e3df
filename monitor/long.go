package monitor

import (
	"encoding/binary"

	"github.com/quicway/quicway/internal/wire"
)

// maxCoalesced bounds the packets of a datagram that are read.
const maxCoalesced = 8

// longHeader takes a datagram whose first packet has a long header. It returns
// false if the datagram belongs to no connection.
func (t *Tracker) longHeader(a *arrival) bool {
	if len(a.payload) < 7 {
		return t.refuse(a)
	}
	version := wire.Version(binary.BigEndian.Uint32(a.payload[1:]))
	if version.Google() {
		return t.countFound(a, t.long.google(a, version))
	}
	if len(a.payload) < a.length {
		// Only the beginning was captured. With zeros for the rest the lengths in
		// the headers add up, though no key opens it.
		t.padded = append(t.padded[:0], a.payload...)
		t.padded = append(t.padded, make([]byte, a.length-len(a.payload))...)
		a.payload = t.padded
	}
	if version == wire.VersionNegotiation {
		return t.countFound(a, t.long.negotiation(a))
	}
	p := t.long.match(a, version)
	if p == nil {
		return t.refuse(a)
	}
	t.coalesced(a, p)
	t.count(a, p)
	if p != p.conn.active {
		t.evaluate(a, p, p.sender(a))
	}
	return true
}

// refuse takes a datagram that belongs to no connection. If it has a long header
// of an unknown version a Version Negotiation may answer it.
func (t *Tracker) refuse(a *arrival) bool {
	switch {
	case a.flow != nil:
	case t.index.filter.excludes(a.key):
		t.index.shun(a)
	default:
		t.index.potential.addLong(a)
	}
	return false
}

// coalesced reads the packets of a datagram that belongs to a connection.
func (t *Tracker) coalesced(a *arrival, p *path) {
	rest := a.payload
	for range maxCoalesced {
		if len(rest) == 0 {
			return
		}
		if !wire.IsLong(rest[0]) {
			if rest[0]&fixedBit == 0 {
				p.conn.history.add(p.sender(a), sawDiscarded)
			} else if len(rest) >= minShort {
				p.conn.history.addShort(p.sender(a))
				t.spin(a, p, rest)
			}
			return
		}
		h, err := p.conn.dialectOf(rest).Parse(rest)
		if err != nil {
			t.counters.Malformed++
			return
		}
		t.longPacket(a, p, &h)
		rest = rest[len(h.Packet):]
	}
}

// longPacket takes one packet with a long header.
func (t *Tracker) longPacket(a *arrival, p *path, h *wire.Header) {
	c, from := p.conn, p.sender(a)
	c.addVersion(h.Version)
	c.history.addLong(from, h.Type)
	answers := h.Type != wire.ZeroRTT
	switch h.Type {
	case wire.Retry:
		t.initials.retry(a, p, h)
		return
	case wire.Initial:
		var opened bool
		if opened, answers = t.initials.read(a, p, h); opened {
			if from = p.sender(a); h.Version != c.version && from == wire.Server {
				c.version, c.dialect = h.Version, c.dialectOf(h.Packet) // compatible version negotiation (RFC 9368 §2.3)
			}
		} else if c.handshake != nil {
			t.counters.Unopened++
		}
	case wire.ZeroRTT:
		c.zeroRTT++
	}
	if c.timeHandshake(a, p, h, answers) {
		t.counters.handshakes.add(c)
		t.events.handshakeRTT(c)
	}
	c.origin.note(from, h)
	if c.ids[from].length < 0 {
		t.index.learnID(c, from, idOf(h.SrcID), a.now)
	}
	// A side may use another ID of its peer before the handshake is over.
	if n := c.ids[1-from].length; h.Type == wire.Handshake && !c.knows(1-from, h.DstID) && (n < 0 || int(n) == len(h.DstID)) {
		t.index.learnID(c, 1-from, idOf(h.DstID), a.now)
	}
	p.sent[from].id = idOf(h.DstID)
}
