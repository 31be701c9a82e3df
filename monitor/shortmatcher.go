package monitor

import (
	"strconv"

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
	moves    *openMoves
	lists    uint64 // of suspects so far
}

// match returns the path that a short header belongs to, or nil. moved reports
// whether the ID is one of a connection that has moved there.
func (m *shortMatcher) match(a *arrival) (p *path, moved bool) {
	if m.index.filter != nil && m.index.ignores(a.key) {
		return nil, false
	}
	potential := &m.index.potential
	if len(a.payload) < minShort {
		potential.disprove(a)
		return nil, false
	}
	fixed, alone := a.payload[0]&fixedBit != 0, false
	if e := potential.at(a); e != nil {
		if !fixed && e.value.ruledOut() {
			return nil, false // another protocol: the bit is not a connection's that greases it
		}
		alone = m.index.alone(e)
	}
	if o, id := m.index.ownerByShort(a, alone); id.len > 0 {
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

// strange reports whether a datagram on a path that is not in use any more may be another
// connection's: a full one of the client with an unknown ID, or what follows. A port may be used
// again.
func (m *shortMatcher) strange(a *arrival, p *path, from wire.Side) bool {
	c := p.conn
	e := m.index.sources.peek(sourceKey{anyPort(p.client()), p.server()})
	if e == nil || len(e.value.list) < 2 {
		return false
	}
	began := m.index.potential.at(a) != nil
	if !began && (from != wire.Client || a.length < probeLen) {
		return false
	}
	n := int(c.ids[1-from].length)
	if n <= 0 || len(a.payload) < n+minShort {
		return began && n == 0
	}
	id := a.payload[1 : 1+n]
	return !p.sent[from].id.is(id) && !c.ids[1-from].seenOnce.is(id) && !c.knows(1-from, id)
}

// byID takes a datagram with the ID of a connection that has had no path between
// these endpoints.
func (m *shortMatcher) byID(a *arrival, o owner, id ID) (p *path, moved bool) {
	client, server := clientAndServer(a.datagram, o.side)
	c := o.conn
	for _, p := range c.paths {
		if p.server() == server || p.client() == client {
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
	m.index.census.update(p.conn)
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
	client, server, known, by := m.index.rolesOf(a.key, s)
	if s.packets() <= patience {
		var found suspects
		movedClient, movedServer := client, server
		if known {
			found = m.suspects(a, client, server, s)
		} else {
			movedClient, movedServer, found = m.otherServer(a, s)
		}
		// If another protocol shares the sockets (RFC 9443), or opens the NATs for a connection,
		// only the probing of a path is QUIC.
		if found.near > 0 || !s.disproved && len(found.choices) > 0 {
			p, wait := m.byMove(a, movedClient, movedServer, s, found)
			if s.waiting = wait; p != nil || wait {
				return p
			}
		}
	}
	if s.disproved {
		return nil
	}
	return m.openMidFlow(a, client, server, s, by)
}

// openMidFlow opens a connection that began before the capture. It returns nil if
// nothing says that there is one. by says what shows which end is the server.
func (m *shortMatcher) openMidFlow(a *arrival, client, server endpoint, s *candidate, by string) *path {
	evidence := m.evidence(client, server, s)
	if evidence == "" || m.index.filter.excludes(a.key) {
		return nil
	}
	p := m.index.open(a, client, server, MidFlow, evidence+"; "+by)
	m.index.adopt(p, s)
	m.index.learnServer(p, a.now)
	m.events.emit(EventNew, p.conn, nil)
	return p
}

// evidence returns what says that a candidate is a connection, or nothing.
func (m *shortMatcher) evidence(client, server endpoint, s *candidate) string {
	switch {
	case m.index.knownAlone(s):
	case m.index.sources.peek(sourceKey{anyPort(client), server}) != nil,
		s.looksProtected() && m.index.sources.hostsHaveConnection(client, server):
		return "short headers between hosts that have a connection"
	}
	if s.looksQUIC() {
		return "many short headers with the same random ID, both ways"
	}
	return ""
}

// openPotential opens the connections of candidates that look like QUIC, and
// whose hosts have got a connection meanwhile.
func (m *shortMatcher) openPotential() {
	for e := range m.index.potential.all() {
		s := &e.value
		if s.disproved || s.waiting && m.clock.now-s.last < waitingFor || !s.bothWays() || !s.looksProtected() || m.index.filter.excludes(e.key) {
			continue
		}
		a := arrival{now: m.clock.now, key: e.key, fromA: true, datagram: &decap.Datagram{Src: e.key.a, Dst: e.key.b}}
		client, server, known, by := m.index.rolesOf(e.key, s)
		if !known && m.index.sources.hostsHaveConnection(server, client) {
			client, server, by = server, client, byAnswer
		}
		evidence := m.evidence(client, server, s)
		if evidence == "" {
			continue
		}
		p := m.index.open(&a, client, server, MidFlow, evidence+"; "+by)
		s.uncounted = lone{} // no datagram has led here
		m.index.adopt(p, s)
		m.index.learnServer(p, a.now)
		p.conn.last = s.last
		m.index.recount(p.conn, false)
		m.events.emit(EventNew, p.conn, nil)
	}
}
