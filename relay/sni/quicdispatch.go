package sni

import (
	"encoding/binary"

	"github.com/quicway/quicway/internal/wire"
)

// dispatch relays a run by its connection ID. p may be nil.
func (sh *shard) dispatch(at endpoints, p *peer, r *run) {
	if p != nil {
		sh.prune(p)
		p = sh.peers[at]
	}
	if wire.IsLong(r.data[0]) {
		sh.dispatchLong(at, p, r)
		return
	}
	if p == nil {
		sh.dispatchNew(at, r)
		return
	}
	for _, f := range p.flows {
		if f.last.len > 0 && f.last.isShortID(r.data) {
			f.used = sh.now
			sh.pass(f, r, strange)
			return
		}
	}
	t := sh.relay.table
	t.mu.Lock()
	c, known := t.findShortLocked(p, r.data)
	id, by := known.get()
	t.mu.Unlock()
	switch f := p.flowOf(c); {
	case f != nil:
		f.last, f.used = id, sh.now
		sh.pass(f, r, f.evidenceOf(true, by))
	case c != nil: // another connection has moved here
		f := sh.newMoved(at, c)
		f.last = id
		sh.move(f, r, strange)
	case len(p.flows) == 1:
		sh.passUnknown(p.flows[0], r)
	default:
		sh.guessOne(p, r)
	}
}

// flowOf returns the flow of a connection at an address, or nil.
func (p *peer) flowOf(c *quicConn) *flow {
	if p == nil || c == nil {
		return nil
	}
	for _, f := range p.flows {
		if f.conn == c {
			return f
		}
	}
	return nil
}

// evidence is what a run shows about the client's address.
type evidence uint8

const (
	noEvidence evidence = iota
	// strange: the ID may be one that the upstream has announced.
	strange
	// genuine is like strange, and the run is certainly of the connection.
	genuine
	// proof: the upstream has announced the ID only to the client's address.
	proof
)

// evidenceOf returns what the use of an ID of a flow's connection shows. by is the flow by which
// the upstream has announced the ID, and chosen says that it is one of the upstream's.
func (f *flow) evidenceOf(chosen bool, by *flow) evidence {
	switch {
	case by == f && !f.moved:
		return proof
	case chosen:
		return strange
	}
	return noEvidence
}

// pass relays a run of a flow.
func (sh *shard) pass(f *flow, r *run, e evidence) {
	if !f.usable() {
		sh.hold(f, r)
		return
	}
	if !sh.confirm(f, len(r.data), e) {
		sh.drop(r, DropFull)
		return
	}
	sh.forward(f, r)
	if f.attempt != nil {
		sh.keep(f, r)
	}
}

// passUnknown relays a run with a short header and an ID that is not known, from the address
// of exactly one flow. Only a confirmed flow learns the ID, when it comes twice.
func (sh *shard) passUnknown(f *flow, r *run) {
	length := int(f.conn.idLen.Load())
	if id, ok := shortID(r.data, max(length, 0)); ok && length >= minKnownID && f.confirmed.Load() {
		if f.guess.add(id, sh.now) >= 2 {
			sh.learn(f, id)
		}
	}
	sh.pass(f, r, f.strange())
}

// strange returns what an ID that is not known shows. An upstream's ID may be too short to be a
// secret: then any ID has to do.
func (f *flow) strange() evidence {
	switch {
	case !f.answered.Load():
		return noEvidence
	case f.shortIDs():
		return genuine
	}
	return strange
}

// learn adds an ID of a flow that the client has begun to use.
func (sh *shard) learn(f *flow, id connID) {
	t := sh.relay.table
	t.mu.Lock()
	t.learnLocked(f.conn, id, true, nil)
	t.mu.Unlock()
	f.last, f.guess = id, guess{}
}

// confirm confirms a flow if a run from the client shows that it receives the upstream's
// datagrams. It reports false if there is no room for the flow, which has ended then.
func (sh *shard) confirm(f *flow, size int, e evidence) bool {
	switch {
	case f.confirmed.Load() && e != proof:
		return true
	case e != proof && (e == noEvidence || !f.answers(size, f.moved || e == genuine)):
		return true
	}
	why, ok := sh.relay.confirm(f, e == proof)
	switch {
	case ok:
		f.keys = nil
		return true
	case why == QuotaRefused:
		sh.relay.endConn(f.conn)
	default:
		sh.relay.end(f, why)
	}
	return false
}

// dispatchLong relays a packet with a long header.
func (sh *shard) dispatchLong(at endpoints, p *peer, r *run) {
	if len(r.data) < 7 {
		sh.drop(r, DropMalformed)
		return
	}
	version := wire.Version(binary.BigEndian.Uint32(r.data[1:]))
	d := dialectOf(version)
	h, err := d.Parse(r.data)
	if err != nil || version == wire.VersionNegotiation || len(h.DstID) > wire.MaxIDLen {
		sh.drop(r, DropMalformed)
		return
	}
	id := idOf(h.DstID)
	if p != nil {
		for _, f := range p.flows {
			if f.attempt != nil && f.attempt.id == id {
				sh.collect(f, r)
				return
			}
		}
	}
	t := sh.relay.table
	t.mu.Lock()
	c, known := t.findLocked(p, id)
	_, by := known.get()
	answered, chosen := c != nil && c.answered, known != nil && known.chosen
	t.mu.Unlock()
	if f := p.flowOf(c); f != nil {
		sh.pass(f, r, f.evidenceOf(chosen, by))
		return
	}
	if f, e := p.ownerOf(&h); f != nil {
		sh.learn(f, id)
		sh.pass(f, r, e)
		return
	}
	if answered && (chosen || h.Type == wire.Initial) {
		e := noEvidence
		if chosen {
			e = strange
		}
		sh.move(sh.newMoved(at, c), r, e)
		return
	}
	a := &attempt{id: id, version: version, dialect: d, opaque: d == wire.NoDialect}
	why, begins := sh.mayBegin(a, r, &h)
	switch f := p.only(); {
	case begins:
		sh.attempt(at, p, r, a, &h)
	case f != nil && why == DropUnknownID:
		sh.pass(f, r, f.strange())
	default:
		sh.drop(r, why)
	}
}

// ownerOf returns the flow of an address whose client has sent a long header with an ID that is
// not known: it may use another of the upstream's IDs already. An Initial is the flow's if its
// keys open it, and another packet if its client has the same Source Connection ID. nil: there
// is none.
func (p *peer) ownerOf(h *wire.Header) (*flow, evidence) {
	if p == nil || h.Type != wire.Initial && h.Type != wire.Handshake {
		return nil, noEvidence
	}
	for _, f := range p.flows {
		if !f.answered.Load() {
			continue
		}
		if h.Type == wire.Handshake {
			if len(h.SrcID) > 0 && idOf(h.SrcID) == f.source {
				return f, strange
			}
			continue
		}
		if f.keys == nil {
			continue
		}
		if _, err := f.keys.Open(nil, h); err == nil {
			return f, genuine
		}
	}
	return nil, noEvidence
}

// dialectOf returns the dialect of a version whose ClientHello can be read, or NoDialect.
func dialectOf(v wire.Version) wire.Dialect {
	if d := v.Dialect(); d != wire.GoogleQ050 {
		return d
	}
	return wire.NoDialect
}

// dispatchNew relays a run with a short header from an address without flows: a connection has
// moved there. Its ID says which, or else its source if all its connections go to one upstream.
func (sh *shard) dispatchNew(at endpoints, r *run) {
	t := sh.relay.table
	t.mu.Lock()
	c, known := t.findShortLocked(nil, r.data)
	id, _ := known.get()
	several := false
	if c == nil {
		c, several = t.onlyLocked(sourceOf(at.client.Addr()))
	}
	t.mu.Unlock()
	switch {
	case c == nil:
		sh.drop(r, DropUnknownID)
	case several:
		sh.moveUnknown(at, c, r)
	default:
		f := sh.newMoved(at, c)
		f.last, f.cheap = id, known == nil
		sh.move(f, r, strange)
	}
}
