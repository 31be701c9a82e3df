package monitor

import (
	"strconv"
	"time"

	"github.com/quicway/quicway/internal/decap"
	"github.com/quicway/quicway/internal/wire"
)

// shortMatcher finds the connections of short headers between unknown endpoints. A
// connection that has moved is found by its ID. Without one, a path that is being
// tried and a connection that began before the capture are found by the hosts
// that they are between.
type shortMatcher struct {
	index    *index
	counters *counters
	events   *events
	clock    *clock
	offload  *offload
}

// match returns the path that a short header belongs to, or nil. moved reports
// whether the ID is one of a connection that has moved there.
func (m *shortMatcher) match(a *arrival) (p *path, moved bool) {
	if m.index.ignores(a.key) {
		return nil, false
	}
	potential := &m.index.potential
	if len(a.payload) < minShort {
		potential.disprove(a)
		return nil, false
	}
	fixed := a.payload[0]&fixedBit != 0
	if !fixed && potential.disproved(a.key) {
		return nil, false // another protocol: the bit is not a connection's that greases it
	}
	if o, id := m.index.ownerByShort(a); id.len > 0 {
		return m.byID(a, o, id)
	}
	if !fixed {
		potential.disprove(a)
		return nil, false
	}
	s := potential.of(a)
	if s.shunned {
		return nil, false
	}
	s.addShort(a)
	if s.bothWays() {
		p = m.bySource(a, s)
	}
	if p == nil {
		m.counters.potential(s, 1)
	}
	return p, false
}

// byID takes a datagram with the ID of a connection that has had no path between
// these endpoints.
func (m *shortMatcher) byID(a *arrival, o owner, id ID) (p *path, moved bool) {
	client, server := clientAndServer(a.datagram, o.side)
	c := o.conn
	for _, p := range c.paths {
		if p.server == server || p.client == client {
			c.history.addShort(1 - o.side)
			return m.index.follow(a, o, id), true
		}
	}
	if m.index.filter.excludes(a.key) {
		return nil, false
	}
	// Both endpoints differ: the connection was captured at another place as
	// well, or another one has the same ID.
	number := strconv.FormatUint(c.number, 10)
	p = m.index.open(a, client, server, MidFlow, "an ID of connection "+number+", between other endpoints")
	p.conn.version, p.conn.dialect = c.version, c.dialect
	for side := range c.ids {
		p.conn.ids[side].length = c.ids[side].length
	}
	p.sent[1-o.side].id = id
	p.conn.history.addShort(1 - o.side)
	m.index.learnServer(p, a.now)
	m.events.emit(EventNew, p.conn, nil)
	return p, false
}

// bySource finds the connection that tries a path between a candidate's
// endpoints, or opens one if the candidate is between hosts that have one.
func (m *shortMatcher) bySource(a *arrival, s *candidate) *path {
	client, server, known := m.index.rolesOf(a.key, s)
	if known {
		if c := m.prober(client, server, s); c != nil {
			return m.addProbed(a, c, client, server, s, Medium)
		}
	}
	if s.disproved {
		// Another protocol shares the sockets (RFC 9443), or opens the NATs for a
		// connection. Then only the probing of a path is QUIC.
		return nil
	}
	if known {
		if c := m.mover(client, server, s); c != nil {
			return m.addProbed(a, c, client, server, s, Low)
		}
	}
	return m.openMidFlow(a, client, server, s)
}

// openMidFlow opens a connection that began before the capture. It returns nil if
// nothing says that there is one.
func (m *shortMatcher) openMidFlow(a *arrival, client, server endpoint, s *candidate) *path {
	evidence := m.evidence(client, server, s)
	if evidence == "" || m.index.filter.excludes(a.key) {
		return nil
	}
	p := m.index.open(a, client, server, MidFlow, evidence)
	m.index.adopt(p, s)
	m.index.learnServer(p, a.now)
	m.events.emit(EventNew, p.conn, nil)
	return p
}

// evidence returns what says that a candidate is a connection, or nothing.
func (m *shortMatcher) evidence(client, server endpoint, s *candidate) string {
	switch {
	case m.index.sources.peek(sourceKey{anyPort(client), server}) != nil,
		s.looksProtected() && m.index.sources.hostsHaveConnection(client, server):
		return "short headers between hosts that have a connection"
	case s.looksQUIC():
		return "many short headers with the same random ID, both ways"
	}
	return ""
}

// openPotential opens the connections of candidates that look like QUIC, and
// whose hosts have got a connection meanwhile.
func (m *shortMatcher) openPotential() {
	for e := range m.index.potential.all() {
		s := e.value
		if s.disproved || !s.bothWays() || !s.looksProtected() || m.index.filter.excludes(e.key) {
			continue
		}
		a := arrival{now: m.clock.now, key: e.key, fromA: true, datagram: &decap.Datagram{Src: e.key.a, Dst: e.key.b}}
		client, server, known := m.index.rolesOf(e.key, s)
		if !known && m.index.sources.hostsHaveConnection(server, client) {
			client, server = server, client
		}
		evidence := m.evidence(client, server, s)
		if evidence == "" {
			continue
		}
		p := m.index.open(&a, client, server, MidFlow, evidence)
		s.uncounted = Traffic{} // no datagram has led here
		m.index.adopt(p, s)
		m.index.learnServer(p, a.now)
		p.conn.last = s.last
		m.events.emit(EventNew, p.conn, nil)
	}
}

// proberIdle is the silence after which a connection is not taken to try a path.
const proberIdle = int64(time.Minute)

// prober finds the connection that may be trying another path: from the same host
// to the same server, or from the same endpoint to another server. Both sides
// send full datagrams to validate a path (RFC 9000 §8.2.1, §8.2.2).
func (m *shortMatcher) prober(client, server endpoint, s *candidate) *connection {
	if !s.beganWithProbes() {
		return nil
	}
	for _, key := range [...]sourceKey{{anyPort(client), server}, {client: client}} {
		e := m.index.sources.peek(key)
		if e == nil {
			continue
		}
		for i := len(e.value.list) - 1; i >= 0; i-- {
			c := e.value.list[i]
			m.offload.settle(c)
			if c.established() && c.first < s.first && s.first-c.last < proberIdle {
				return c
			}
		}
	}
	return nil
}

// moverIdle is the silence after which a connection is not taken to move to
// another address.
const moverIdle = int64(5 * time.Second)

// mover finds the connection that may be trying a path from another address, when
// neither an ID nor an address leads to it: the only one at the server that was
// active just before.
func (m *shortMatcher) mover(client, server endpoint, s *candidate) (found *connection) {
	e := m.index.sources.peek(sourceKey{server: server})
	if e == nil || e.value.more || !s.beganWithProbes() {
		return nil
	}
	for _, c := range e.value.list {
		m.offload.settle(c)
		switch {
		case s.first-c.last > moverIdle || c.confidence == GoogleQUIC:
		case found != nil || c.active.client.IP == client.IP:
			return nil // it may be any of them
		case c.established() && c.first < s.first:
			found = c
		}
	}
	return found
}

// addProbed adds the path that a connection tries with new IDs.
func (m *shortMatcher) addProbed(a *arrival, c *connection, client, server endpoint, s *candidate, level Level) *path {
	p := m.index.addPath(a, c, client, server)
	p.validated, p.kind = true, Probe
	m.index.adopt(p, s)
	for side := range c.ids {
		// All IDs of a side have the same length.
		if n := c.ids[side].length; n > 0 {
			toServer := wire.Side(side) == wire.Server
			id := idOf(s.directions[directionFrom(toServer == p.clientIsA)].prefix[:n])
			m.index.learnID(c, wire.Side(side), id, a.now)
			p.sent[1-side].id = id
		}
	}
	m.index.potential.remove(a.key)
	m.index.learnServer(p, a.now)
	evidence := "full datagrams both ways with new connection IDs"
	if level == Low {
		evidence += ", from another address, while no other connection was at the server"
	}
	change := PathChange{Kind: Probe, Time: timeOf(a.now), Confidence: level, Evidence: evidence}
	if added, ok := m.index.change(c.active, p, change); ok {
		m.events.pathChanged(c, added)
	}
	return p
}
