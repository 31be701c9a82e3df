package monitor

import (
	"encoding/binary"

	"github.com/quicway/quicway/internal/wire"
)

// maxCoalesced bounds the packets of a datagram that are looked at.
const maxCoalesced = 8

// minUnknown is how long a client's first datagram is at least that is worth
// trying the keys of all dialects on (RFC 9000 §14.1).
const minUnknown = 1200

// long takes a datagram whose first packet has a long header. It returns false
// if it is no connection's.
func (t *Tracker) long(a *arrival) bool {
	if len(a.payload) < 7 {
		return t.refuse(a)
	}
	if len(a.payload) < a.length {
		// The headers are there, and lengths add up if the rest is taken for
		// zeros. It opens with no key.
		t.padded = append(t.padded[:0], a.payload...)
		t.padded = append(t.padded, make([]byte, a.length-len(a.payload))...)
		a.payload = t.padded
	}
	version := wire.Version(binary.BigEndian.Uint32(a.payload[1:]))
	switch {
	case version == wire.VersionNegotiation:
		return t.negotiation(a)
	case version.Google():
		return t.google(a, version)
	}
	p := t.known(a)
	if p == nil && a.flow == nil {
		p = t.rebound(a)
	}
	if p == nil {
		p = t.begin(a, version)
	}
	if p == nil {
		return t.refuse(a)
	}
	t.coalesced(a, p)
	t.count(a, p)
	if p != p.record.active {
		t.judge(a, p, p.sender(a))
	}
	return true
}

// known finds the path whose connection the IDs belong to.
func (t *Tracker) known(a *arrival) *path {
	if a.flow == nil {
		return nil
	}
	var likely *path
	for _, p := range a.flow.paths {
		r := p.record
		if r.confidence == GoogleQUIC {
			continue
		}
		h, err := r.dialectOf(a.payload).Parse(a.payload)
		if err != nil {
			continue
		}
		from := p.sender(a)
		if r.knows(1-from, h.DstID) || r.ends[from].has(h.SrcID) {
			return p
		}
		if len(h.DstID) == 0 && r.ends[1-from].idLen == 0 && (len(h.SrcID) == 0 || r.ends[from].idLen < 0) {
			return p
		}
		// Who has no ID of its own may go on with another of its peer's.
		if h.Type == wire.Handshake && len(h.SrcID) == 0 && r.ends[from].idLen == 0 &&
			int(r.ends[1-from].idLen) == len(h.DstID) && r.answered != 0 && r.attempt != nil {
			likely = p
		}
	}
	return likely
}

// rebound finds the connection that goes on with its handshake from another
// address: by the IDs of both sides.
func (t *Tracker) rebound(a *arrival) *path {
	h, err := wire.NoDialect.Parse(a.payload)
	if err != nil || len(h.DstID) < minLookup || len(h.DstID) > wire.MaxIDLen {
		return nil
	}
	e := t.ids.peek(idOf(h.DstID))
	if e == nil {
		return nil
	}
	for _, to := range [...]wire.Side{wire.Server, wire.Client} {
		o, ok := e.value.best(a, to)
		if !ok || len(h.SrcID) > 0 && !o.record.knows(1-to, h.SrcID) {
			continue
		}
		if _, server := sides(a.datagram, to); o.record.at(server) {
			return t.follow(a, o, idOf(h.DstID))
		}
	}
	return nil
}

// at says whether a connection's server is at an endpoint.
func (r *record) at(server endpoint) bool {
	for _, p := range r.paths {
		if p.server == server {
			return true
		}
	}
	return false
}

// knows says whether packets to a side may have this ID.
func (r *record) knows(side wire.Side, id []byte) bool {
	return len(id) > 0 && (r.ends[side].has(id) || side == wire.Server && r.isOrigID(id))
}

// sender is the side that has sent an arrival on a path.
func (p *path) sender(a *arrival) wire.Side {
	if a.fromA == p.clientIsA {
		return wire.Client
	}
	return wire.Server
}

// begin looks for a connection that begins with a datagram: an Initial that
// opens with the keys of its own ID. If there is none, long headers of a
// known version that fit together may be the rest of one.
func (t *Tracker) begin(a *arrival, version wire.Version) *path {
	if d := version.Dialect(); d != wire.NoDialect {
		if p := t.beginAs(a, version, d); p != nil {
			return p
		}
		return t.shaped(a, version, d)
	}
	if a.length >= minUnknown {
		for _, d := range wire.Dialects {
			if p := t.beginAs(a, version, d); p != nil {
				return p
			}
		}
	}
	return nil
}

// beginAs is begin with the layout and the keys of a dialect.
func (t *Tracker) beginAs(a *arrival, version wire.Version, d wire.Dialect) *path {
	rest := a.payload
	for range maxCoalesced {
		h, err := d.Parse(rest)
		if err != nil || h.Version != version {
			return nil
		}
		if h.Type == wire.Initial {
			keys, err := d.InitialKeys(h.DstID, wire.Client)
			if err != nil {
				return nil
			}
			if _, err := keys.Open(t.plain[:0], &h); err != nil {
				return nil
			}
			return t.attemptOf(a, &h, d, keys)
		}
		if rest = rest[len(h.Packet):]; len(rest) == 0 || h.Type != wire.ZeroRTT {
			return nil
		}
	}
	return nil
}

// attemptOf finds or makes the record of an Initial that opens with the keys of
// its own ID. It is the next attempt of a client that was told of other
// versions; else it is a connection of its own, whatever else is between
// these endpoints: nobody can take a record over by an Initial.
func (t *Tracker) attemptOf(a *arrival, h *wire.Header, d wire.Dialect, keys *wire.InitialKeys) *path {
	var p *path
	if a.flow != nil {
		for _, have := range a.flow.paths {
			if have.record.negotiated && have.sender(a) == wire.Client {
				p = have
				p.record.negotiated = false
				p.record.ends[wire.Client].idLen = -1
				break
			}
		}
	}
	if p == nil {
		p = t.open(a, a.datagram.Src, a.datagram.Dst, Proven, "an Initial opens")
		defer t.emit(EventNew, p.record, nil)
	}
	r := p.record
	if r.raise(Proven, "an Initial opens") {
		t.learnServer(p, a.now)
	}
	r.version, r.dialect = h.Version, d
	r.addVersion(h.Version)
	t.learnOrigID(r, idOf(h.DstID), a.now)
	r.attempt = &attempt{keyID: idOf(h.DstID)}
	r.attempt.keys[wire.Client] = sideKeys{d, keys}
	if t.attempts.get(r.number, a.now) == nil {
		t.attempts.put(r.number, r, a.now)
	}
	return p
}

// shaped makes a record of long headers that do not open but fit together:
// the server's, or what follows a handshake's beginning that was not captured.
func (t *Tracker) shaped(a *arrival, version wire.Version, d wire.Dialect) *path {
	h, ok := fits(a, version, d)
	if !ok {
		t.counters.Malformed++
		return nil
	}
	if a.flow != nil { // of a handshake here, but with unknown IDs
		for _, p := range a.flow.paths {
			if p.record.hasVersion(version) && p.record.concluded == 0 {
				t.counters.Unopened++
				return p
			}
		}
	}
	client, server := t.roles(a, &h)
	p := t.open(a, client, server, HandshakeShaped, "long headers of "+version.String()+" that do not open")
	p.record.version, p.record.dialect = version, d
	p.record.addVersion(version)
	p.record.attempt = &attempt{}
	if h.Type == wire.ZeroRTT { // it has overtaken the Initial, which has the same ID
		t.learnOrigID(p.record, idOf(h.DstID), a.now)
	}
	t.attempts.put(p.record.number, p.record, a.now)
	t.emit(EventNew, p.record, nil)
	return p
}

// minNumbered is the least that follows the length in a protected packet: a
// packet number, and a tag (RFC 9001 §5.4.2).
const minNumbered = 20

// fits says whether a datagram is long headers of one version and one pair of
// IDs up to its end, or to a short header.
func fits(a *arrival, version wire.Version, d wire.Dialect) (first wire.Header, ok bool) {
	rest := a.payload
	for n := range maxCoalesced {
		h, err := d.Parse(rest)
		switch {
		case err != nil || h.Version != version || !h.FixedBit():
			return first, false
		case h.Type != wire.Retry && len(h.Packet)-h.HeaderLen < minNumbered:
			return first, false
		case n == 0:
			if first = h; len(h.DstID) == 0 && len(h.SrcID) == 0 {
				return first, false
			}
		case string(h.DstID) != string(first.DstID):
			return first, false
		}
		rest = rest[len(h.Packet):]
		if len(rest) == 0 || !wire.IsLong(rest[0]) {
			return first, true
		}
	}
	return first, false
}

// roles guesses which side is the client's: 0-RTT and tokens come from there,
// Retry from the other, and servers mostly have the smaller port.
func (t *Tracker) roles(a *arrival, h *wire.Header) (client, server endpoint) {
	src, dst := a.datagram.Src, a.datagram.Dst
	switch {
	case h.Type == wire.Retry:
		return dst, src
	case h.Type == wire.ZeroRTT || len(h.Token) > 0:
		return src, dst
	case t.destinations.peek(src) != nil:
		return dst, src
	case t.destinations.peek(dst) != nil || dst.Port <= src.Port:
		return src, dst
	}
	return dst, src
}

// coalesced reads the packets of a datagram of a connection.
func (t *Tracker) coalesced(a *arrival, p *path) {
	rest := a.payload
	for range maxCoalesced {
		if len(rest) == 0 {
			return
		}
		if !wire.IsLong(rest[0]) {
			if rest[0]&fixedBit != 0 && len(rest) >= minShort {
				t.spin(a, p, p.sender(a), rest[0])
			}
			return
		}
		h, err := p.record.dialectOf(rest).Parse(rest)
		if err != nil {
			t.counters.Malformed++
			return
		}
		t.packet(a, p, &h)
		rest = rest[len(h.Packet):]
	}
}

// packet takes one packet with a long header.
func (t *Tracker) packet(a *arrival, p *path, h *wire.Header) {
	r, from := p.record, p.sender(a)
	r.addVersion(h.Version)
	switch h.Type {
	case wire.Retry:
		t.retry(a, p, h)
		return
	case wire.Initial:
		r.initials[from]++
		if opened := t.initial(a, p, h); opened {
			if from = p.sender(a); h.Version != r.version && from == wire.Server {
				r.version, r.dialect = h.Version, r.dialectOf(h.Packet) // compatible negotiation (RFC 9368 §2.3)
			}
		} else if r.attempt != nil {
			t.counters.Unopened++
		}
	case wire.ZeroRTT:
		r.zeroRTT++
	}
	t.timeHandshake(a, p, h.Type)
	if r.ends[from].idLen < 0 {
		t.learnID(r, from, idOf(h.SrcID), a.now)
	}
	// A side may use a new ID of the other's before the handshake is over.
	if n := r.ends[1-from].idLen; h.Type == wire.Handshake && !r.knows(1-from, h.DstID) && (n < 0 || int(n) == len(h.DstID)) {
		t.learnID(r, 1-from, idOf(h.DstID), a.now)
	}
	p.ways[from].id = idOf(h.DstID)
}

// refuse is for datagrams that no connection wants. Long headers of a version
// that nobody knows may be answered by a Version Negotiation.
func (t *Tracker) refuse(a *arrival) bool {
	if a.flow == nil {
		t.suspectLong(a)
	}
	return false
}
