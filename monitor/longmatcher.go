package monitor

import (
	"cmp"
	"time"

	"github.com/quicway/quicway/internal/wire"
)

// longMatcher finds the connections of long headers. It opens a connection for those
// that begin one.
type longMatcher struct {
	index    *index
	counters *counters
	events   *events
	initials *initialReader
}

// minUnknown is the least length of a client's first datagram (RFC 9000 §14.1).
// Shorter datagrams of an unknown version are not tried with the keys of all
// dialects.
const minUnknown = 1200

// match finds the path that a datagram with a long header belongs to, or
// begins a connection. It returns nil if the datagram belongs to none.
func (m *longMatcher) match(a *arrival, version wire.Version) *path {
	if a.flow != nil {
		likely, sure := a.flow.byLongHeader(a)
		if sure {
			return likely
		}
		if p := m.byKeys(a, version); p != nil {
			return p
		}
		if likely != nil {
			return cmp.Or(m.beginAnew(a, version), likely)
		}
	} else if o, id := m.index.ownerByLong(a); id.len > 0 {
		return m.index.follow(a, o, id)
	}
	return m.begin(a, version)
}

// byKeys finds the path of a handshake between the same endpoints whose keys decrypt the first
// Initial of a datagram. A client may send an Initial to a connection ID that is encrypted in
// the server's first 1-RTT packet (RFC 9000 §5.1.1).
func (m *longMatcher) byKeys(a *arrival, version wire.Version) *path {
	for _, p := range a.flow.paths {
		if p.conn.handshake == nil || !p.conn.hasVersion(version) {
			continue
		}
		d := p.conn.dialectOf(a.payload)
		h, err := d.Parse(a.payload)
		if err != nil || h.Type != wire.Initial {
			continue
		}
		if m.initials.decrypts(p.conn.handshake.initialKeys(p.sender(a), d), &h) {
			return p
		}
	}
	return nil
}

// beginAnew begins a connection with an Initial of a client that has an ID of another connection, though
// not the keys. It returns nil if it is none.
func (m *longMatcher) beginAnew(a *arrival, version wire.Version) *path {
	if d := version.Dialect(); d != wire.NoDialect && !m.index.filter.excludes(a.key) {
		return m.beginAs(a, version, d)
	}
	return nil
}

// begin begins a connection with an Initial that the keys of its own ID decrypt.
// If there is none it begins one with long headers of a known version that
// fit together: they may be the rest of a handshake. It begins none between endpoints that the
// filter excludes.
func (m *longMatcher) begin(a *arrival, version wire.Version) *path {
	if m.index.filter.excludes(a.key) {
		return nil
	}
	if d := version.Dialect(); d != wire.NoDialect {
		if p := m.beginAs(a, version, d); p != nil {
			return p
		}
		return m.beginUnopened(a, version, d)
	}
	if a.length >= minUnknown {
		for _, dialects := range wire.Layouts {
			if p := m.beginAs(a, version, dialects...); p != nil {
				return p
			}
		}
	}
	return nil
}

// beginAs begins a connection with an Initial that has the layout of some dialects, and the
// keys of one of them.
func (m *longMatcher) beginAs(a *arrival, version wire.Version, dialects ...wire.Dialect) *path {
	h, ok := firstInitial(a.payload, version, dialects[0])
	if !ok {
		return nil
	}
	for _, d := range dialects {
		if keys := m.initials.keysOf(&h, d); keys != nil {
			return m.beginInitial(a, &h, d, keys)
		}
	}
	return nil
}

// firstInitial returns the first Initial of a datagram. 0-RTT may come before it.
func firstInitial(b []byte, version wire.Version, d wire.Dialect) (h wire.Header, ok bool) {
	for range maxCoalesced {
		h, err := d.Parse(b)
		if err != nil || h.Version != version {
			return h, false
		}
		if h.Type == wire.Initial {
			return h, true
		}
		if b = b[len(h.Packet):]; len(b) == 0 || h.Type != wire.ZeroRTT {
			return h, false
		}
	}
	return h, false
}

// beginInitial takes an Initial that the keys of its own ID decrypt. If a
// client was told to use another version, or to begin again, this is its connection's next
// handshake. Else it is a new connection, whatever there is between the
// endpoints: a forged Initial must not change another connection.
func (m *longMatcher) beginInitial(a *arrival, h *wire.Header, d wire.Dialect, keys *wire.InitialKeys) *path {
	p := cmp.Or(negotiatedPath(a), retriedPath(a, h), m.answeredPath(a, h))
	if p == nil {
		if p = lateAttempt(a, h); p != nil {
			m.index.learnOrigID(p.conn, idOf(h.DstID), a.now)
			return p
		}
		p = m.index.open(a, a.datagram.Src, a.datagram.Dst, Proven, "an Initial was decrypted")
		p.conn.origin.uid = firstUID(a.key, h, true)
		defer m.events.emit(EventNew, p.conn, nil)
	}
	c := p.conn
	m.index.prove(p, "an Initial was decrypted", a.now)
	c.version, c.dialect = h.Version, d
	c.addVersion(h.Version)
	id := idOf(h.DstID)
	m.index.learnOrigID(c, id, a.now)
	c.handshake = &handshake{keyID: id}
	c.handshake.keys[wire.Client] = sideKeys{d, keys}
	if m.index.handshakes.get(c.number, a.now) == nil {
		m.index.handshakes.put(c.number, c, a.now)
	}
	return p
}

// negotiatedPath returns the path of the connection whose client was told to use
// another version and goes on with an arrival, or nil.
func negotiatedPath(a *arrival) *path {
	if a.flow == nil {
		return nil
	}
	for _, p := range a.flow.paths {
		if p.conn.negotiated && p.sender(a) == wire.Client {
			p.conn.negotiated = false
			p.conn.ids[wire.Client].length = -1
			return p
		}
	}
	return nil
}

// retriedPath returns the path of the connection whose client begins again with a token or another version,
// after a Retry or a Version Negotiation that was not captured, or nil. The client keeps its own ID.
func retriedPath(a *arrival, h *wire.Header) *path {
	if a.flow == nil || len(h.SrcID) == 0 {
		return nil
	}
	for _, p := range a.flow.paths {
		c := p.conn
		if p.sender(a) == wire.Client && c.answerAt == 0 && c.ids[wire.Client].has(h.SrcID) && (len(h.Token) > 0 || !c.hasVersion(h.Version)) {
			return p
		}
	}
	return nil
}

// outOfOrder is the time in which packets of both directions may be captured out of order.
const outOfOrder = int64(time.Second)

// answeredPath returns the path of the connection whose server's answer came before the Initial that it
// answers, out of order, or nil. The client may have been taken for the server.
func (m *longMatcher) answeredPath(a *arrival, h *wire.Header) *path {
	if a.flow == nil {
		return nil
	}
	for _, p := range a.flow.paths {
		c, answers := p.conn, &p.sent[1-p.sender(a)]
		if c.confidence == HandshakeShaped && c.handshake != nil && c.hasVersion(h.Version) && a.now-c.first <= outOfOrder &&
			answers.packets > 0 && answers.id.is(h.SrcID) {
			if p.sender(a) == wire.Server {
				m.index.swapSides(c)
			}
			c.ids[wire.Server].length = -1 // the answer may be forged
			return p
		}
	}
	return nil
}

// lateAttempt returns the path of the connection whose client has the same ID, and whose first packets have just
// come, or nil. The client's first Initial came after those that followed a Retry or a Version Negotiation.
func lateAttempt(a *arrival, h *wire.Header) *path {
	if a.flow == nil || len(h.SrcID) == 0 {
		return nil
	}
	for _, p := range a.flow.paths {
		if c := p.conn; p.sender(a) == wire.Client && a.now-c.first <= outOfOrder && c.ids[wire.Client].has(h.SrcID) {
			return p
		}
	}
	return nil
}

// beginUnopened begins a connection with long headers that do not open but fit
// together: those of the server, or of a handshake whose beginning was not
// captured.
func (m *longMatcher) beginUnopened(a *arrival, version wire.Version, d wire.Dialect) *path {
	h, ok := fitTogether(a, version, d)
	if !ok {
		m.counters.Malformed++
		return nil
	}
	if a.flow != nil { // a handshake between these endpoints, with unknown IDs
		for _, p := range a.flow.paths {
			if p.conn.hasVersion(version) && p.conn.confirmAt == 0 {
				m.counters.Unopened++
				return p
			}
		}
	}
	client, server := m.index.rolesOfLong(a, &h)
	p := m.index.open(a, client, server, HandshakeShaped, "long headers of "+version.String()+" that do not open")
	c := p.conn
	c.origin.uid = firstUID(a.key, &h, h.Type == wire.ZeroRTT)
	c.version, c.dialect = version, d
	c.addVersion(version)
	c.handshake = &handshake{}
	if h.Type == wire.ZeroRTT { // it came before the Initial, which has the same ID
		m.index.learnOrigID(c, idOf(h.DstID), a.now)
	}
	m.index.handshakes.put(c.number, c, a.now)
	m.events.emit(EventNew, c, nil)
	return p
}

// minNumbered is the least that follows the length in a protected packet: a
// packet number and a tag (RFC 9001 §5.4.2).
const minNumbered = 20

// fitTogether reports whether a datagram consists of long headers of one version
// with one pair of IDs, up to its end or to a short header.
func fitTogether(a *arrival, version wire.Version, d wire.Dialect) (first wire.Header, ok bool) {
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

// match says whether a datagram belongs to a path.
type match uint8

const (
	noMatch match = iota
	mayMatch
	matches
)

// matchLong compares the IDs of a long header with those of the connection.
func (p *path) matchLong(a *arrival) match {
	c := p.conn
	if c.confidence == GoogleQUIC {
		return noMatch
	}
	h, err := c.dialectOf(a.payload).Parse(a.payload)
	if err != nil {
		return noMatch
	}
	from := p.sender(a)
	own, peer := &c.ids[from], &c.ids[1-from]
	several := len(a.flow.paths) > 1
	switch {
	case h.Type == wire.Retry && from == wire.Server && c.isOrigID(h.SrcID):
		return matches // once more
	case c.knows(1-from, h.DstID):
		if several && from == wire.Server && !own.has(h.SrcID) && (h.Type == wire.Initial || own.length > 0) {
			return mayMatch // the client may have the same ID in another connection
		}
		return matches
	case own.has(h.SrcID):
		if h.Type == wire.Initial && from == wire.Client {
			return mayMatch
		}
		return matches
	case len(h.DstID) == 0 && peer.length == 0 && len(h.SrcID) == 0:
		return matches
	case len(h.DstID) == 0 && peer.length == 0 && own.length < 0:
		if several && h.Type == wire.Initial {
			return mayMatch
		}
		return matches
	case h.Type == wire.Handshake && len(h.SrcID) == 0 && own.length == 0 &&
		int(peer.length) == len(h.DstID) && c.answerAt != 0 && c.handshake != nil:
		// A side without an ID of its own may use another of its peer's.
		return mayMatch
	}
	return noMatch
}
