package monitor

import "github.com/quicway/quicway/internal/wire"

// negotiation takes a Version Negotiation packet. It has the IDs of the packet
// that it answers, exchanged (RFC 8999 §6). What the client tries next is the
// same connection. It returns nil if the packet answers none.
func (m *longMatcher) negotiation(a *arrival) *path {
	for _, layout := range [...]wire.Dialect{wire.NoDialect, wire.Draft18} {
		h, err := layout.Parse(a.payload)
		if err != nil {
			continue
		}
		if p := m.negotiatedBy(a, &h); p != nil {
			return p
		}
	}
	return nil
}

// negotiatedBy returns the path that a Version Negotiation belongs to, or nil.
func (m *longMatcher) negotiatedBy(a *arrival, h *wire.Header) *path {
	if a.flow == nil {
		return m.openNegotiated(a, h)
	}
	for _, p := range a.flow.paths {
		if c := p.conn; p.sender(a) == wire.Server && c.answeredBy(h) {
			c.negotiations++
			c.negotiated = c.answerAt == 0
			c.raise(HandshakeShaped, "a Version Negotiation answers it")
			return p
		}
	}
	return nil
}

// openNegotiated opens the connection of a packet of an unknown version that a
// Version Negotiation has answered.
func (m *longMatcher) openNegotiated(a *arrival, h *wire.Header) *path {
	e := m.index.potential.at(a)
	if e == nil || e.value.long == nil || e.value.fromA == a.fromA {
		return nil
	}
	s, long := &e.value, e.value.long
	if !long.dst.is(h.SrcID) || !long.src.is(h.DstID) {
		return nil
	}
	p := m.index.open(a, a.datagram.Dst, a.datagram.Src, HandshakeShaped, "a Version Negotiation answers it")
	c := p.conn
	c.version, c.negotiations, c.negotiated = long.version, 1, true
	c.first, c.initialAt = s.first, s.first
	c.addVersion(long.version)
	c.origin = origin{uid: uidOf(a.key, long.dst, long.src), ids: [2]ID{wire.Client: long.src}, known: [2]bool{wire.Client: true}}
	c.history.add(wire.Client, sawUnknown)
	m.index.learnOrigID(c, long.dst, a.now)
	m.index.learnID(c, wire.Client, long.src, a.now)
	p.first = s.first
	d := &s.directions[directionFrom(s.fromA)]
	p.sent[wire.Client] = halfPath{packets: d.packets, bytes: d.bytes, first: s.first, last: s.first, id: long.dst}
	m.counters.adopt(d.packets, 0)
	m.index.learnServer(p, a.now)
	m.events.emit(EventNew, c, nil)
	return p
}
