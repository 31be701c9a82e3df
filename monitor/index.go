package monitor

import (
	"slices"

	"github.com/quicway/quicway/internal/wire"
)

// Bounds of a connection and of what leads to it.
const (
	maxPaths      = 16 // of a connection
	maxShared     = 8  // connections between the same two endpoints
	maxSideIDs    = 8  // connection IDs that are kept of a side
	maxOrigIDs    = 4
	maxVersions   = 4
	maxChanges    = 16
	maxOwners     = 4   // connections with the same ID
	maxSourceConn = 512 // connections of an entry in the sources table
)

// index holds the connections and the tables that lead from a datagram to its
// connection. Every table is bounded. When a connection or a path is removed the
// index removes all entries that lead to it.
type index struct {
	counters *counters
	hooks    hooks
	filter   *Filter
	slack    int64 // by how much the times of connections may be wrong

	opened       uint64 // connections so far
	census       census // of connections
	connections  table[uint64, *connection]
	handshakes   table[uint64, *connection] // those with a handshake that is being read
	hasher       hasher                     // of the following tables, but ids
	flows        table[tuple, flow]
	ids          idTable
	destinations table[endpoint, destination]
	sources      sourceTable
	potential    potentialTable
}

// hooks are what the tracker does when the index changes by itself.
type hooks struct {
	closing     func(c *connection, why Reason) // called before c is taken apart
	flowChanged func(key tuple)                 // one of several paths was removed
	flowGone    func(key tuple)
}

// destination is an endpoint at which a server answers.
type destination struct {
	lengths     [2]uint32 // of the IDs of either side: bit n is set for IDs of n bytes
	connections uint64
}

// init sets the limits of the tables.
func (x *index) init(conf *Config, counters *counters, hooks hooks) {
	x.counters, x.hooks, x.filter = counters, hooks, conf.Filter
	n := conf.MaxConnections
	h := newHasher()
	x.hasher = h
	x.flows.hash = func(key tuple) uint32 { return h.tuple(&key) }
	x.potential.hash, x.destinations.hash, x.sources.hash = x.flows.hash, h.endpoint, h.source
	x.connections.init(n, func(e *entry[uint64, *connection], why Reason) { x.closed(e.value, why) })
	x.handshakes.init(conf.MaxHandshakes, func(e *entry[uint64, *connection], why Reason) {
		if why == Evicted {
			x.counters.HandshakesSkipped++
		}
		e.value.handshake = nil
	})
	x.flows.init(2*n, func(e *entry[tuple, flow], why Reason) { x.flowDropped(e.key, &e.value, why) })
	x.ids.init(8*n, counters)
	x.destinations.init(2*n, nil)
	x.sources.init(4*n, nil) // three for each client, and one for each server
	x.potential.init(max(n/2, 1), func(e *entry[tuple, candidate], _ Reason) { x.hooks.flowGone(e.key) })
}

// open adds a connection that begins between the arrival's endpoints, and returns
// its path.
func (x *index) open(a *arrival, client, server endpoint, confidence Confidence, evidence string) *path {
	x.opened++
	c := &connection{
		number: x.opened, confidence: confidence, evidence: evidence,
		first: a.now, last: a.now, iface: int32(a.iface),
	}
	c.ids[wire.Client].length, c.ids[wire.Server].length = -1, -1
	c.origin.uid = uidOf(a.key)
	if c.direction = a.direction; a.datagram.Src != client {
		c.direction = a.direction.reverse()
	}
	c.entry = x.connections.put(c.number, c, a.now)
	p := x.addPath(a, c, client, server)
	p.validated = true
	c.active = p
	x.census.enter(c)
	x.learnServer(p, a.now)
	x.potential.remove(a.key)
	return p
}

// addPath adds the arrival's endpoints as a path of a connection.
func (x *index) addPath(a *arrival, c *connection, client, server endpoint) *path {
	if len(c.paths) >= maxPaths {
		x.counters.PathOverflow++
		x.removePath(c.leastUseful())
	}
	p := &path{conn: c, key: a.key, clientIsA: a.key.a == client, first: a.now}
	c.paths = append(c.paths, p)
	c.last = max(c.last, a.now) // before events about the packet
	// Making room above may have removed the flow that the arrival came with.
	e := x.flows.peek(a.key)
	if e == nil {
		e = x.flows.put(a.key, flow{}, a.now)
	}
	a.flow = &e.value
	if len(a.flow.paths) >= maxShared {
		x.counters.PathOverflow++
		x.evictPath(a.flow.leastUseful(a.now))
	}
	a.flow.paths = appendFew(a.flow.paths, &a.flow.first, p)
	if len(c.paths) > 1 {
		c.selectedBy(x.filter) // now, because the path may be removed
	}
	return p
}

// follow adds the path to which a connection has come with a known ID.
func (x *index) follow(a *arrival, o owner, id ID) *path {
	client, server := clientAndServer(a.datagram, o.side)
	p := x.addPath(a, o.conn, client, server)
	p.kind = o.conn.kindByID(p)
	p.sent[1-o.side].id = id
	x.potential.remove(a.key)
	return p
}

// touch marks a connection, and the entries that lead to it by one of its paths,
// as seen. Most calls do nothing.
func (x *index) touch(c *connection, p *path, now int64) {
	c.first, c.last = min(c.first, now), now // the clock may have been set back
	if now-c.entry.seen < touchAfter {
		return
	}
	x.wake(c)
	x.connections.touch(c.entry, now)
	for side := range p.sent {
		if id := p.sent[side].id; id.len > 0 {
			x.ids.get(id, now)
		}
	}
	for _, key := range p.sourceKeys() {
		x.sources.get(key, now)
	}
	x.destinations.get(p.server(), now)
}

// learnServer notes that a path's client and server have a connection, and how
// long connection IDs are there.
func (x *index) learnServer(p *path, now int64) {
	if p.conn.confidence < MidFlow {
		return
	}
	e := x.destinations.get(p.server(), now)
	if e == nil {
		e = x.destinations.put(p.server(), destination{}, now)
	}
	if p == p.conn.paths[0] {
		e.value.connections++
	}
	for side := range p.conn.ids {
		if n := p.conn.ids[side].length; n >= 0 {
			e.value.lengths[side] |= 1 << n
		}
	}
	for _, key := range p.sourceKeys() {
		x.sources.add(key, p.conn, now)
	}
}

// prove notes that a path's connection is QUIC beyond doubt.
func (x *index) prove(p *path, evidence string, now int64) {
	if p.conn.raise(Proven, evidence) {
		x.learnServer(p, now)
	}
}

// learnID notes that packets with an ID go to a side of a connection.
func (x *index) learnID(c *connection, side wire.Side, id ID, now int64) {
	ids := &c.ids[side]
	ids.length = int8(id.len)
	x.ids.lengths[side] |= 1 << id.len
	if e := x.destinations.peek(c.paths[0].server()); e != nil {
		e.value.lengths[side] |= 1 << id.len
	}
	if id.len == 0 || ids.has(id.bytes[:id.len]) {
		return
	}
	if len(ids.list) >= maxSideIDs {
		x.counters.IDOverflow++
		x.ids.forget(ids.list[0], c)
		ids.list = slices.Delete(ids.list, 0, 1)
	}
	ids.list = append(ids.list, id)
	x.ids.add(id, owner{c, side}, now)
}

// learnOrigID notes an ID that the client has chosen for the server, or that a
// Retry has given it.
func (x *index) learnOrigID(c *connection, id ID, now int64) {
	if c.isOrigID(id.bytes[:id.len]) {
		return
	}
	if len(c.origIDs) >= maxOrigIDs {
		x.counters.IDOverflow++
		return
	}
	c.origIDs = append(c.origIDs, id)
	x.ids.add(id, owner{c, wire.Server}, now)
}

// swapSides exchanges the sides of a connection whose client was taken for its
// server.
func (x *index) swapSides(c *connection) {
	for _, p := range c.paths {
		for _, key := range p.sourceKeys() {
			x.sources.forget(key, c)
		}
	}
	c.swapSides()
	for side := range c.ids {
		for _, id := range c.ids[side].list {
			x.ids.forget(id, c)
			x.ids.add(id, owner{c, wire.Side(side)}, c.last)
		}
	}
}

// adopt adds to a path what was counted between its endpoints while it was only a
// candidate.
func (x *index) adopt(p *path, s *candidate) {
	senders := [2]wire.Side{wire.Client, wire.Server} // of s.directions
	if !p.clientIsA {
		senders = [2]wire.Side{wire.Server, wire.Client}
	}
	before := p.packets()
	p.first = min(p.first, s.first)
	p.conn.last = max(p.conn.last, s.last)
	if len(p.conn.paths) == 1 {
		p.conn.first = min(p.conn.first, s.first)
	}
	for i, side := range senders {
		d, sent := &s.directions[i], &p.sent[side]
		if sent.packets == 0 {
			sent.first = s.first
		}
		sent.packets += d.packets
		sent.bytes += d.bytes
		sent.ecn.add(d.ecn)
		p.conn.history.addShorts(side, d.packets)
		sent.last = max(sent.last, s.last)
		if p.conn.ids[1-side].length < 0 && d.looksProtected() {
			id := idOf(d.prefix[:d.common])
			x.learnID(p.conn, 1-side, id, s.last)
			sent.id = id
		}
	}
	// The latest datagram is in these sums, and the tracker will count it again.
	if s.uncounted.length > 0 {
		sent := &p.sent[senders[s.latest]]
		sent.packets--
		sent.bytes -= uint64(s.uncounted.length)
		sent.ecn.uncount(s.uncounted.ecn)
	}
	added := p.packets() - before
	x.counters.adopt(added, s.potential)
	if x.filter.excludes(p.key) {
		x.counters.Filtered -= added
	}
}

// change adds a change of path to a connection. ok is false if it has too many.
func (x *index) change(from, to *path, change PathChange) (out *PathChange, ok bool) {
	change.From, change.To = moved(from, to)
	if !x.keepChange(to.conn, &change) {
		return nil, false
	}
	to.change = uint8(len(to.conn.changes))
	return &change, true
}

// keepChange adds a change of path to a connection. It returns false if it has too many.
func (x *index) keepChange(c *connection, change *PathChange) bool {
	x.counters.changes[change.Kind][change.Confidence]++
	if len(c.changes) >= maxChanges {
		x.counters.ChangeOverflow++
		c.left().changes++
		return false
	}
	c.changes = append(c.changes, *change)
	return true
}

// addStats adds the state of the tables to the counters.
func (x *index) addStats(out *Stats) {
	out.Opened = x.opened
	x.census.addTo(out)
	out.Tables = map[string]TableStats{
		"connections":  x.connections.stats(),
		"handshakes":   x.handshakes.stats(),
		"flows":        x.flows.stats(),
		"ids":          x.ids.stats(),
		"destinations": x.destinations.stats(),
		"sources":      x.sources.stats(),
		"potential":    x.potential.stats(),
	}
}
