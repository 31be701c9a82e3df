package monitor

import (
	"github.com/quicway/quicway/internal/hello"
	"github.com/quicway/quicway/internal/wire"
)

// google takes a packet of one of Google's own versions. It never belongs to
// another connection between its endpoints: nothing in it could prove that. Then it
// returns nil.
func (m *longMatcher) google(a *arrival, version wire.Version) *path {
	if a.flow != nil {
		for _, p := range a.flow.paths {
			if p.conn.confidence == GoogleQUIC {
				m.initials.google(a, p, version)
				return p
			}
		}
		m.counters.Bogus++
		return nil
	}
	if m.index.filter.excludes(a.key) {
		m.index.shun(a)
		return nil
	}
	client, server := m.index.rolesOfLong(a, &wire.Header{})
	readable, begins := m.initials.findGoogle(a, version)
	if begins { // only clients send a CHLO
		client, server = a.datagram.Src, a.datagram.Dst
	}
	p := m.index.open(a, client, server, GoogleQUIC, "its version")
	c := p.conn
	c.version = version
	c.addVersion(version)
	c.history.add(p.sender(a), sawUnknown)
	if readable && p.sender(a) == wire.Client { // before the event: the name is not known yet
		m.initials.expectGoogle(c, a.now)
	}
	m.events.emit(EventNew, c, nil)
	m.initials.google(a, p, version)
	return p
}

// whole reports whether all of a datagram was captured.
func (a *arrival) whole() bool { return len(a.payload) >= a.length }

// findGoogle reports whether a packet has a part of a handshake message, and whether that is the
// beginning of a CHLO.
func (r *initialReader) findGoogle(a *arrival, version wire.Version) (readable, begins bool) {
	if !a.whole() {
		return false, false
	}
	for f := range wire.GoogleCrypto(a.payload, version, r.plain[:0]) {
		readable, begins = true, begins || hello.IsGoogle(f.Data)
	}
	return readable, begins
}

// expectGoogle begins to read a CHLO.
func (r *initialReader) expectGoogle(c *connection, now int64) {
	c.handshake = new(handshake)
	r.index.handshakes.put(c.number, c, now)
}

// google reads the CHLO in a packet of a client, or a part of it, unless it was read before.
func (r *initialReader) google(a *arrival, p *path, version wire.Version) {
	c := p.conn
	if c.tls != nil || p.sender(a) != wire.Client || !a.whole() {
		return
	}
	for f := range wire.GoogleCrypto(a.payload, version, r.plain[:0]) {
		if c.handshake == nil {
			r.expectGoogle(c, a.now)
		}
		if err := c.handshake.addGoogle(f); err != nil {
			r.counters.HelloErrors++
			break
		}
	}
	r.readGoogle(c)
}

// addGoogle adds a part of a CHLO. If the first one was not captured a later one begins elsewhere in the
// stream.
func (h *handshake) addGoogle(f wire.CryptoFrame) error {
	stream := &h.streams[wire.Client]
	if f.Offset > 0 && hello.IsGoogle(f.Data) && len(stream.Contiguous()) == 0 {
		*stream, h.base = wire.CryptoStream{}, f.Offset
	}
	if f.Offset < h.base {
		return nil
	}
	return stream.Add(f.Offset-h.base, f.Data)
}

// readGoogle reads the CHLO once it is complete.
func (r *initialReader) readGoogle(c *connection) {
	if c.handshake == nil {
		return
	}
	msg := c.handshake.streams[wire.Client].Contiguous()
	n := hello.GoogleLen(msg)
	if n <= wire.MaxClientHello && (n == 0 || n > len(msg)) {
		return
	}
	c.tls = &TLS{}
	chlo, err := hello.ParseGoogle(msg)
	r.index.handshakes.remove(c.number)
	c.handshake = nil
	if err != nil {
		r.counters.HelloErrors++
		return
	}
	c.tls.ServerName = chlo.ServerName
	if name := chlo.UserAgent; name != "" {
		c.userAgent = &name
	}
	c.history.add(wire.Client, sawHello)
	r.events.emit(EventIdentified, c, nil)
}
