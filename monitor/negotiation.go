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
	e := m.index.potential.peek(a.key)
	if e == nil || !e.value.long || e.value.fromA == a.fromA ||
		!e.value.dst.is(h.SrcID) || !e.value.src.is(h.DstID) {
		return nil
	}
	s := e.value
	p := m.index.open(a, a.datagram.Dst, a.datagram.Src, HandshakeShaped, "a Version Negotiation answers it")
	c := p.conn
	c.version, c.negotiations, c.negotiated = s.version, 1, true
	c.first, c.initialAt = s.first, s.first
	c.addVersion(s.version)
	c.origin = origin{uid: uidOf(a.key, s.dst, s.src), ids: [2]ID{wire.Client: s.src}, known: [2]bool{wire.Client: true}}
	c.history.add(wire.Client, sawUnknown)
	m.index.learnOrigID(c, s.dst, a.now)
	m.index.learnID(c, wire.Client, s.src, a.now)
	p.first = s.first
	d := &s.directions[directionFrom(s.fromA)]
	p.sent[wire.Client] = halfPath{packets: d.packets, bytes: d.bytes, first: s.first, last: s.first, id: s.dst}
	m.counters.adopt(d.packets, 0)
	m.index.learnServer(p, a.now)
	m.events.emit(EventNew, c, nil)
	return p
}
