package monitor

import (
	"time"

	"github.com/quicway/quicway/internal/wire"
)

const (
	// proberIdle is the silence after which a connection is not taken to try a path.
	proberIdle = int64(time.Minute)
	// moverIdle is the silence after which a connection is not taken to move to another
	// address of its client.
	moverIdle = int64(5 * time.Second)
	// preferredWithin is the time after its handshake in which a client moves to the preferred
	// address of its server (RFC 9000 §9.6.1).
	preferredWithin = int64(10 * time.Second)
	// patience is the number of packets between unknown endpoints after which the connections
	// that may have moved there are not listed again.
	patience = 32
	// waitingFor is the silence after which it is not waited for more packets.
	waitingFor = int64(time.Second)
	// maxRecent is the number of the connections seen last that are searched for one whose
	// server has another address.
	maxRecent = 256
)

// suspects are the connections that may have moved to a path between unknown endpoints.
type suspects struct {
	choices []choice
	near    int  // the choices of the same client's host, which come first
	crowded bool // there are more of these than are listed
}

// suspects lists the connections that may have moved to a candidate's endpoints: from the same
// endpoint to another server, from the same host to the same server, or from another host.
// Their connection IDs are as long as the candidate's. Both sides send full datagrams to validate
// a path (RFC 9000 §8.2.1, §8.2.2). A server that is sent to its preferred address may answer
// later, and from its other address until then.
func (m *shortMatcher) suspects(a *arrival, client, server endpoint, s *candidate) (out suspects) {
	clientIsA := a.key.a == client
	if s.to(wire.Server, clientIsA).firstLen < probeLen {
		return out
	}
	m.lists++
	out.add(m, sourceKey{client: client}, s, clientIsA, proberIdle, true)
	if s.beganWithProbes() {
		out.add(m, sourceKey{anyPort(client), server}, s, clientIsA, proberIdle, true)
		out.add(m, sourceKey{server: server}, s, clientIsA, moverIdle, false)
	}
	return out
}

// add adds the connections of an entry in the sources table.
func (out *suspects) add(m *shortMatcher, key sourceKey, s *candidate, clientIsA bool, idle int64, near bool) {
	e := m.index.sources.peek(key)
	if e == nil || e.value.more && !near {
		return
	}
	out.crowded = out.crowded || e.value.more
	for _, c := range e.value.list {
		if c.listed == m.lists {
			continue
		}
		c.listed = m.lists
		m.offload.settle(c)
		if !c.established() || c.first >= s.first || s.first-c.last >= idle || !s.fits(c, clientIsA) {
			continue
		}
		if len(out.choices) >= maxSourceConn {
			out.crowded = true
			return
		}
		out.choices = append(out.choices, choice{conn: c, near: near, packets: c.clientPackets()})
		if near {
			out.near++
		}
	}
}

// alone returns the only connection of the same client's host, or else the only one at all, or
// nil.
func (out *suspects) alone() *connection {
	if !out.crowded && (out.near == 1 || out.near == 0 && len(out.choices) == 1) {
		return out.choices[0].conn
	}
	return nil
}

// otherServer lists the connections whose client may have moved to another address of their server
// with another socket, or to one of the other family: after the handshake, from the same host, or
// from the same port of an address of the other family.
func (m *shortMatcher) otherServer(a *arrival, s *candidate) (client, server endpoint, out suspects) {
	if !s.beganWithProbes() || !s.looksProtected() {
		return client, server, out
	}
	n := 0
	for e := range m.index.connections.all() {
		c := e.value
		if n++; n > maxRecent && s.first-c.last < preferredWithin {
			return client, server, suspects{}
		}
		if n > maxRecent {
			break
		}
		if c.confirmAt == 0 || c.first >= s.first || s.first-c.confirmAt > preferredWithin {
			continue
		}
		for _, clientIsA := range [...]bool{true, false} {
			from, to := a.key.a, a.key.b
			if !clientIsA {
				from, to = to, from
			}
			if c.ids[wire.Server].length < minLookup || !c.mayUse(from, to) || !s.fits(c, clientIsA) {
				continue
			}
			if len(out.choices) > 0 && from != client {
				return client, server, suspects{}
			}
			client, server = from, to
			out.choices = append(out.choices, choice{conn: c, packets: c.clientPackets()})
		}
	}
	return client, server, out
}

// mayUse reports whether a client may reach another address of its server between two endpoints.
func (c *connection) mayUse(client, server endpoint) bool {
	own := c.active.client()
	if own.Addr().Is4() == client.Addr().Is4() {
		return own.IP == client.IP && c.active.server().IP != server.IP
	}
	return own.Port == client.Port
}

// byMove takes a candidate to whose endpoints one of several connections may have moved. It
// returns the path that the candidate's packets belong to. wait reports whether more packets have
// to show that.
func (m *shortMatcher) byMove(a *arrival, client, server endpoint, s *candidate, found suspects) (p *path, wait bool) {
	clientIsA := a.key.a == client
	fromClient := s.to(wire.Server, clientIsA)
	if c := found.alone(); c != nil {
		level := Low
		if found.near == 1 {
			level = Medium
		}
		only := len(found.choices) == 1
		if only && level == Medium && s.beganWithProbes() {
			if fromClient.packets < 2 && c.ids[wire.Server].length > 0 {
				return nil, true // the next packet shows how long the ID is
			}
			return m.addProbed(a, c, client, server, s, level), false
		}
		last := c.active.sent[wire.Client].last
		if only || !c.pausedBefore(s.first, pauses) {
			if fromClient.inUse() && fromClient.inARow(last) {
				p := m.addProbed(a, c, client, server, s, level)
				p.inARow, p.activePackets = movedAfter-1, c.clientPackets()
				return p, false
			}
			if s.packets() < patience {
				return nil, true
			}
		}
	}
	if fromClient.packets < 2 {
		return nil, true
	}
	return m.openMove(a, client, server, s, found), false
}

// inUse reports whether there was a packet that does not only probe the path.
func (d *candidateDirection) inUse() bool { return d.usedAt != 0 || d.packets >= maxProbes }

// openMove opens a connection that continues one of several, of which nothing shows which.
func (m *shortMatcher) openMove(a *arrival, client, server endpoint, s *candidate, found suspects) *path {
	p := m.index.open(a, client, server, MidFlow, "full datagrams both ways with new connection IDs, at a server that has connections")
	m.index.adopt(p, s)
	for side := range p.conn.ids {
		if n := found.idLength(wire.Side(side)); n >= 0 {
			m.setID(a, p, wire.Side(side), s, n)
		}
	}
	m.events.emit(EventNew, p.conn, nil)
	m.moves.open(p, s.to(wire.Server, p.clientIsA), found)
	return p
}

// idLength returns how long the connection IDs of a side are, or -1 if that depends on the choice.
func (out *suspects) idLength(side wire.Side) int8 {
	n := out.choices[0].conn.ids[side].length
	for i := range out.choices {
		if out.choices[i].conn.ids[side].length != n {
			return -1
		}
	}
	return n
}

// setID notes that the packets of a candidate to a side have IDs of n bytes. All IDs of a side
// have the same length.
func (m *shortMatcher) setID(a *arrival, p *path, side wire.Side, s *candidate, n int8) {
	d := s.to(side, p.clientIsA)
	if d.packets == 0 {
		p.conn.ids[side].length = n
		return
	}
	id := idOf(d.prefix[:n])
	m.index.learnID(p.conn, side, id, a.now)
	p.sent[1-side].id = id
}

// addProbed adds the path that a connection tries with new IDs.
func (m *shortMatcher) addProbed(a *arrival, c *connection, client, server endpoint, s *candidate, level Level) *path {
	p := c.pathBetween(a.key)
	if p == nil {
		p = m.index.addPath(a, c, client, server)
	}
	p.validated, p.kind = true, Probe
	m.index.adopt(p, s)
	for side := range c.ids {
		if n := c.ids[side].length; n > 0 {
			m.setID(a, p, wire.Side(side), s, n)
		}
	}
	m.index.potential.remove(a.key)
	m.index.learnServer(p, a.now)
	evidence := "full datagrams both ways with new connection IDs"
	switch {
	case level == Low:
		evidence += ", from another address, while no other connection was at the server"
	case !s.beganWithProbes():
		evidence = "a full datagram of the same client with new connection IDs, and an answer"
	}
	change := PathChange{Kind: Probe, Time: timeOf(a.now), Confidence: level, Evidence: evidence}
	if added, ok := m.index.change(c.active, p, change); ok {
		m.events.pathChanged(c, added)
	}
	return p
}
