package monitor

import (
	"github.com/quicway/quicway/internal/decap"
	"github.com/quicway/quicway/internal/wire"
)

// minLookup is the shortest ID that endpoints which are not known are judged
// by: fewer bytes meet by chance.
const minLookup = 4

// stray takes a datagram with no long header between endpoints that are not
// known: LinkQUIC's procedure. By an ID it belongs to a connection that has
// moved; by who talks to whom it may.
func (t *Tracker) stray(a *arrival) bool {
	if v, ok := oldGoogle(a.payload); ok {
		return t.google(a, v)
	}
	if len(a.payload) < minShort {
		t.disprove(a)
		return false
	}
	if a.payload[0]&fixedBit == 0 && t.ruledOut(a.key) {
		return false // where others speak, the bit is no connection's to grease
	}
	if o, id := t.lookup(a); id.len > 0 {
		return t.byID(a, o, id)
	}
	if a.payload[0]&fixedBit == 0 {
		t.disprove(a)
		return false
	}
	return t.suspectShort(a)
}

// lookup finds whose ID a short header has, and the ID: one lookup for each length of ID
// that the endpoint it goes to, or comes from, is known to be reached with. If
// neither is known, a server may have moved: then the lengths are all those
// that were seen, from eight bytes on.
func (t *Tracker) lookup(a *arrival) (owner, ID) {
	if e := t.destinations.peek(a.datagram.Dst); e != nil {
		if o, id := t.lookupLengths(a, wire.Server, e.value.lengths[wire.Server]>>minLookup<<minLookup); id.len > 0 {
			return o, id
		}
	}
	if e := t.destinations.peek(a.datagram.Src); e != nil {
		return t.lookupLengths(a, wire.Client, e.value.lengths[wire.Client]>>minLookup<<minLookup)
	}
	if a.payload[0]&fixedBit == 0 {
		return owner{}, ID{}
	}
	if o, id := t.lookupLengths(a, wire.Server, t.lengths[wire.Server]>>8<<8); id.len > 0 {
		return o, id
	}
	return t.lookupLengths(a, wire.Client, t.lengths[wire.Client]>>8<<8)
}

func (t *Tracker) lookupLengths(a *arrival, side wire.Side, lengths uint32) (owner, ID) {
	for n := 0; lengths>>n != 0; n++ {
		if lengths>>n&1 == 0 || len(a.payload) < n+minShort {
			continue
		}
		id := idOf(a.payload[1 : 1+n])
		e := t.ids.peek(id)
		if e == nil {
			continue
		}
		if o, ok := e.value.best(a, side); ok {
			return o, id
		}
	}
	return owner{}, ID{}
}

// best picks the owner whose other endpoint an arrival has: the ID may be that
// of several, if a connection was captured at two places.
func (o *owners) best(a *arrival, side wire.Side) (best owner, ok bool) {
	rank := 0
	for _, have := range o.list {
		if have.side != side {
			continue
		}
		client, server := sides(a.datagram, side)
		score := 1
		for _, p := range have.record.paths {
			switch {
			case p.server == server:
				score = max(score, 4)
			case p.client == client:
				score = max(score, 3)
			case p.client.IP == client.IP || p.server.IP == server.IP:
				score = max(score, 2)
			}
		}
		if score > rank {
			best, ok, rank = have, true, score
		}
	}
	return best, ok
}

// sides says which endpoint is the client's, if a datagram goes to a side.
func sides(d *decap.Datagram, to wire.Side) (client, server endpoint) {
	if to == wire.Server {
		return d.Src, d.Dst
	}
	return d.Dst, d.Src
}

// byID takes a datagram with the ID of a connection that has not been between
// these endpoints.
func (t *Tracker) byID(a *arrival, o owner, id ID) bool {
	client, server := sides(a.datagram, o.side)
	r := o.record
	related := false
	for _, p := range r.paths {
		related = related || p.server == server || p.client == client
	}
	if !related { // both sides differ: another place, or another's ID
		p := t.open(a, client, server, MidFlow, "an ID of connection "+number(r.number)+", between other endpoints")
		p.record.version, p.record.dialect = r.version, r.dialect
		for side := range r.ends {
			p.record.ends[side].idLen = r.ends[side].idLen
		}
		p.ways[1-o.side].id = id
		t.learnServer(p, a.now)
		t.emit(EventNew, p.record, nil)
		t.count(a, p)
		return true
	}
	p := t.follow(a, o, id)
	t.count(a, p)
	t.spin(a, p, 1-o.side, a.payload[0])
	return true
}

// follow adds the path that a connection has come to by an ID.
func (t *Tracker) follow(a *arrival, o owner, id ID) *path {
	client, server := sides(a.datagram, o.side)
	p := t.addPath(a, o.record, client, server)
	p.kind = kindByID(o.record, p)
	p.ways[1-o.side].id = id
	t.potential.remove(a.key)
	return p
}
