package monitor

import (
	"encoding/binary"

	"github.com/quicway/quicway/internal/wire"
)

// negotiation takes a Version Negotiation packet: it has the IDs of what it
// answers, the other way round (RFC 8999 §6). What the client tries next is
// the same connection.
func (t *Tracker) negotiation(a *arrival) bool {
	for _, layout := range [...]wire.Dialect{wire.NoDialect, wire.Draft18} {
		h, err := layout.Parse(a.payload)
		if err != nil {
			continue
		}
		if a.flow == nil {
			if p := t.negotiated(a, &h); p != nil {
				t.count(a, p)
				return true
			}
			continue
		}
		for _, p := range a.flow.paths {
			if p.sender(a) == wire.Server && p.record.answers(&h) {
				p.record.negotiations++
				p.record.negotiated = p.record.answered == 0
				p.record.raise(HandshakeShaped, "a Version Negotiation answers it")
				t.count(a, p)
				return true
			}
		}
	}
	return false
}

// answers says whether a packet of the server has the IDs of the client's.
func (r *record) answers(h *wire.Header) bool {
	toClient := r.ends[wire.Client].has(h.DstID) || len(h.DstID) == 0 && r.ends[wire.Client].idLen == 0
	return toClient && r.knows(wire.Server, h.SrcID)
}

// negotiated makes a record of a packet of an unknown version, once it has been
// answered.
func (t *Tracker) negotiated(a *arrival, h *wire.Header) *path {
	e := t.potential.peek(a.key)
	if e == nil || !e.value.asked || e.value.fromA == a.fromA ||
		!e.value.dst.is(h.SrcID) || !e.value.src.is(h.DstID) {
		return nil
	}
	s := e.value
	p := t.open(a, a.datagram.Dst, a.datagram.Src, HandshakeShaped, "a Version Negotiation answers it")
	r := p.record
	r.version, r.negotiations, r.negotiated = s.version, 1, true
	r.first, r.asked = s.first, s.first
	r.addVersion(s.version)
	t.learnOrigID(r, s.dst, a.now)
	t.learnID(r, wire.Client, s.src, a.now)
	p.first = s.first
	p.ways[wire.Client] = way{packets: s.ways[0].packets, bytes: s.ways[0].bytes, first: s.first, last: s.first, id: s.dst}
	if !s.fromA {
		p.ways[wire.Client].packets, p.ways[wire.Client].bytes = s.ways[1].packets, s.ways[1].bytes
	}
	t.learnServer(p, a.now)
	t.emit(EventNew, r, nil)
	return p
}

// google notes a packet of a version of Google's own, by its long header. It is
// of no other connection between its endpoints: nothing in it could prove that.
func (t *Tracker) google(a *arrival, version wire.Version) bool {
	if a.flow != nil {
		for _, p := range a.flow.paths {
			if p.record.confidence == GoogleQUIC {
				t.count(a, p)
				return true
			}
		}
		t.counters.Bogus++
		return false
	}
	client, server := t.roles(a, &wire.Header{})
	p := t.open(a, client, server, GoogleQUIC, "its version")
	p.record.version = version
	p.record.addVersion(version)
	t.emit(EventNew, p.record, nil)
	t.count(a, p)
	return true
}

// Flags of the public header that Google's versions up to 43 had: the version
// is there, and an ID of eight bytes.
const (
	googleVersion = 0x01
	googleReset   = 0x02
	googleID      = 0x08
	googleUnused  = 0xc0
)

// oldGoogle recognizes a public header with a version.
func oldGoogle(b []byte) (wire.Version, bool) {
	if len(b) < 13 || b[0]&(googleVersion|googleID|googleReset|googleUnused) != googleVersion|googleID {
		return 0, false
	}
	v := wire.Version(binary.BigEndian.Uint32(b[9:]))
	return v, v.Google()
}
