package sni

import (
	"container/list"
	"net/netip"
	"slices"
	"sync"
)

// maxPaths is the number of flows of one connection.
const maxPaths = 4

// flowTable has the flows and connections of all shards, and bounds them.
type flowTable struct {
	conf *Config

	mu        sync.Mutex // guards the following
	flows     map[*flow]struct{}
	waiting   list.List // of *flow that are not confirmed, the oldest first
	sources   map[netip.Prefix]*quicSource
	ids       map[connID]*quicConn
	lengths   [21]int // how many of ids have a length
	confirmed int
	presumed  int // of confirmed
	closed    bool
}

// quicSource has the flows of a source.
type quicSource struct {
	waiting list.List // of *flow that are not confirmed, the oldest first
	// The numbers of confirmed flows: all, and by connection and upstream address.
	confirmed int
	presumed  int
	conns     map[*quicConn]int
	upstreams map[upstreamAddr]int
}

func (s *quicSource) count(f *flow, n int) {
	s.confirmed += n
	if f.presumed {
		s.presumed += n
	}
	countIn(s.conns, f.conn, n)
	countIn(s.upstreams, f.conn.at, n)
}

// countIn adds n to the number of a key.
func countIn[K comparable](m map[K]int, key K, n int) {
	if m[key] += n; m[key] == 0 {
		delete(m, key)
	}
}

func newFlowTable(conf *Config) *flowTable {
	return &flowTable{
		conf: conf, flows: make(map[*flow]struct{}), sources: make(map[netip.Prefix]*quicSource), ids: make(map[connID]*quicConn),
	}
}

// all returns the flows, and lets no more be added.
func (t *flowTable) all() []*flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	return t.listLocked()
}

func (t *flowTable) listLocked() []*flow {
	all := make([]*flow, 0, len(t.flows))
	for f := range t.flows {
		all = append(all, f)
	}
	return all
}

// count returns the numbers of flows, and of those that are not confirmed.
func (t *flowTable) count() (all, waiting int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.flows), t.waiting.Len()
}

func (t *flowTable) sourceLocked(f *flow) *quicSource {
	source := sourceOf(f.client.Addr())
	s := t.sources[source]
	if s == nil {
		s = &quicSource{conns: make(map[*quicConn]int), upstreams: make(map[upstreamAddr]int)}
		t.sources[source] = s
	}
	return s
}

// fullLocked returns why no further flow of a flow's source may be confirmed, or false. Flows that
// are presumed make room.
func (t *flowTable) fullLocked(f *flow) (Failure, bool) {
	switch s := t.sources[sourceOf(f.client.Addr())]; {
	case t.confirmed-t.presumed >= t.conf.MaxConnections:
		return ServerFull, true
	case s != nil && s.confirmed-s.presumed >= t.conf.MaxConnectionsPerSource:
		return SourceFull, true
	}
	return 0, false
}

// samples is how many flows are compared to find one that makes room.
const samples = 64

// surplusLocked returns the flow that has to make room for a flow to be confirmed: one that is
// presumed, and less useful than others. nil: there is room.
func (t *flowTable) surplusLocked(f *flow) (surplus *flow) {
	older := func(other *flow) {
		if other.presumed && other.confirmed.Load() && (surplus == nil || other.lessUseful(surplus)) {
			surplus = other
		}
	}
	s, n := t.sourceLocked(f), 0
	if s.confirmed >= t.conf.MaxConnectionsPerSource {
		for c := range s.conns {
			for _, other := range c.flows {
				if sourceOf(other.client.Addr()) == sourceOf(f.client.Addr()) {
					older(other)
				}
			}
			if n++; n >= samples && surplus != nil {
				break
			}
		}
		return surplus
	}
	if t.confirmed >= t.conf.MaxConnections {
		for other := range t.flows {
			older(other)
			if n++; n >= samples && surplus != nil {
				break
			}
		}
	}
	return surplus
}

// addLocked adds a flow that is not confirmed. The caller ends the flow that has to make room
// for it before; see crowdedLocked.
func (t *flowTable) addLocked(f *flow) {
	t.flows[f] = struct{}{}
	s := t.sourceLocked(f)
	f.waiting, f.same = t.waiting.PushBack(f), s.waiting.PushBack(f)
	f.conn.flows = append(f.conn.flows, f)
}

// crowdedLocked returns the flow that has to make room for another one of a connection and a
// source: the oldest of too many that are not confirmed, or of the connection. nil: there is room.
func (t *flowTable) crowdedLocked(f *flow) *flow {
	s := t.sources[sourceOf(f.client.Addr())]
	switch {
	case s != nil && s.waiting.Len() >= t.conf.MaxWaitingPerSource:
		return s.waiting.Front().Value.(*flow)
	case t.waiting.Len() >= t.conf.MaxWaiting:
		return t.waiting.Front().Value.(*flow)
	case len(f.conn.flows) >= maxPaths:
		return leastUseful(f.conn.flows)
	}
	return nil
}

// leastUseful returns the flow of a connection that makes room for another one.
func leastUseful(flows []*flow) *flow {
	least := flows[0]
	for _, f := range flows[1:] {
		if f.lessUseful(least) {
			least = f
		}
	}
	return least
}

// lessUseful reports whether a flow makes room before another one that is not younger: one that
// is not confirmed first, and then one that has moved. Of confirmed ones of a kind that is the
// one that has been used least recently.
func (f *flow) lessUseful(than *flow) bool {
	if a, b := f.use(), than.use(); a != b {
		return a < b
	}
	return f.confirmed.Load() && f.active.Load() < than.active.Load()
}

// use is how useful a kind of flow is, compared with others.
func (f *flow) use() (n int) {
	if f.confirmed.Load() {
		n += 3
	}
	switch {
	case !f.moved:
		n += 2
	case !f.cheap:
		n++
	}
	return n
}

// confirmLocked moves a flow to those that are confirmed.
func (t *flowTable) confirmLocked(f *flow, presumed bool) {
	t.arrivedLocked(f)
	f.presumed = presumed
	t.countLocked(f, 1)
	f.confirmed.Store(true)
}

// countLocked counts a confirmed flow.
func (t *flowTable) countLocked(f *flow, n int) {
	t.confirmed += n
	if f.presumed {
		t.presumed += n
	}
	t.sourceLocked(f).count(f, n)
}

// arrivedLocked takes a flow from those that are not confirmed.
func (t *flowTable) arrivedLocked(f *flow) {
	if f.waiting == nil {
		return
	}
	t.waiting.Remove(f.waiting)
	t.sourceLocked(f).waiting.Remove(f.same)
	f.waiting, f.same = nil, nil
}

// removeLocked removes a flow. It reports whether it was the last one of its connection.
func (t *flowTable) removeLocked(f *flow) (last bool) {
	delete(t.flows, f)
	t.arrivedLocked(f)
	s := t.sourceLocked(f)
	if f.confirmed.Load() {
		t.countLocked(f, -1)
	}
	if s.waiting.Len() == 0 && s.confirmed == 0 {
		delete(t.sources, sourceOf(f.client.Addr()))
	}
	c := f.conn
	c.flows = slices.DeleteFunc(c.flows, func(other *flow) bool { return other == f })
	if len(c.flows) > 0 {
		return false
	}
	for _, k := range c.ids.ids {
		t.forgetLocked(c, k.connID)
	}
	return true
}

// learnLocked adds an ID of a connection; see knownID. At other addresses the ID stands for the
// connection that had it first: nobody can take over the ID of another connection.
func (t *flowTable) learnLocked(c *quicConn, id connID, chosen bool, by *flow) {
	if id.len == 0 || chosen && id.len < minKnownID || len(c.flows) == 0 || c.ids.find(id) != nil {
		return
	}
	t.forgetLocked(c, c.ids.add(id, chosen, by))
	if t.ids[id] == nil {
		t.ids[id] = c
		t.lengths[id.len]++
	}
}

// forgetLocked removes an ID of a connection.
func (t *flowTable) forgetLocked(c *quicConn, id connID) {
	if id.len > 0 && t.ids[id] == c {
		delete(t.ids, id)
		t.lengths[id.len]--
	}
}

// findLocked returns the connection that has an ID: one of those at an address, or else that at
// another address. p may be nil.
func (t *flowTable) findLocked(p *peer, id connID) (*quicConn, *knownID) {
	if p != nil {
		for _, f := range p.flows {
			if k := f.conn.ids.find(id); k != nil {
				return f.conn, k
			}
		}
	}
	if c := t.ids[id]; c != nil {
		return c, c.ids.find(id)
	}
	return nil, nil
}

// findShortLocked returns the connection that a packet with a short header is of, by its ID,
// whose length is not known, and the ID.
func (t *flowTable) findShortLocked(p *peer, packet []byte) (*quicConn, *knownID) {
	for n := len(t.lengths) - 1; n >= minKnownID; n-- {
		if t.lengths[n] == 0 {
			continue
		}
		id, ok := shortID(packet, n)
		if !ok {
			continue
		}
		if c, k := t.findLocked(p, id); c != nil && k.chosen {
			return c, k
		}
	}
	return nil, nil
}

// onlyLocked returns the connection of a source if all its confirmed flows go to the same
// upstream address, or nil. several says that there are others.
func (t *flowTable) onlyLocked(source netip.Prefix) (only *quicConn, several bool) {
	s := t.sources[source]
	if s == nil || len(s.upstreams) != 1 {
		return nil, false
	}
	for only = range s.conns {
		break
	}
	return only, len(s.conns) > 1
}
