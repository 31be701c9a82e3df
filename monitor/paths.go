package monitor

import (
	"fmt"
	"time"

	"github.com/quicway/quicway/internal/wire"
)

// Judging a path.
const (
	// probeLen is the least length of a datagram that probes a path (RFC 9000
	// §8.2.1).
	probeLen = 1200
	// switchRun is how many packets of the client in a row, with none on the
	// path that was in use, say that it has moved.
	switchRun = 4
	// maxFlips is how many moves back and forth are those of one client; more
	// are several paths at a time.
	maxFlips = 4
	// oneWayRun is how many packets it takes where the other direction is not
	// captured.
	oneWayRun = 8
)

// kindByID says what a path is that has an ID which was in use on another.
func kindByID(r *record, p *path) ChangeKind {
	old := r.active
	switch {
	case old.server != p.server:
		return PreferredAddress
	case old.client.IP == p.client.IP || neighbours(old.client, p.client):
		return Rebinding
	}
	return Migration
}

// neighbours says whether two addresses may be of one NAT: of one /24 or /64.
func neighbours(a, b endpoint) bool {
	bits := 64
	if a.Addr().Is4() {
		bits = 24
	}
	x, err := a.Addr().Prefix(bits)
	if err != nil {
		return false
	}
	return a.Addr().Is4() == b.Addr().Is4() && x.Contains(b.Addr())
}

// judge follows a path that is not, or not yet, the one in use.
func (t *Tracker) judge(a *arrival, p *path, from wire.Side) {
	r := p.record
	if !p.validated && p.bothWays() {
		p.validated = true
		if p.kind != Probe && p != r.active {
			t.learnServer(p, a.now)
			t.move(a, p, p.kind)
			return
		}
	}
	if p == r.active {
		return
	}
	if from != wire.Client && !r.oneWay(wire.Client) {
		return
	}
	t.offload.fetch(t, r.active.key)
	if alive := r.active.ways[from].packets; alive != p.mark {
		p.mark, p.run = alive, 0 // the path in use lives
	}
	p.run++
	switch {
	case p.run < switchRun:
	case p.validated:
		kind := p.kind
		if kind == NoChange || kind == Probe {
			kind = Migration
		}
		if r.active.server != p.server {
			kind = PreferredAddress
		}
		t.move(a, p, kind)
	case p.run == oneWayRun && p.kind != Probe && r.oneWay(1-from):
		t.move(a, p, p.kind)
	}
}

func (p *path) bothWays() bool { return p.ways[0].packets > 0 && p.ways[1].packets > 0 }

// oneWay says that nothing of a side was ever captured.
func (r *record) oneWay(side wire.Side) bool {
	for _, p := range r.paths {
		if p.ways[side].packets > 0 {
			return false
		}
	}
	return true
}

// move makes a path the one in use.
func (t *Tracker) move(a *arrival, p *path, kind ChangeKind) {
	r := p.record
	old := r.active
	r.active = p
	for _, other := range r.paths {
		other.run = 0
	}
	if p.change != 0 && r.changes[p.change-1].Kind != Probe || p == r.paths[0] {
		r.flips++ // it has been in use before
	}
	if r.flips == maxFlips {
		t.change(a, old, p, Multipath, Medium, "packets go by two paths in turns")
	}
	if r.flips >= maxFlips {
		return
	}
	t.change(a, old, p, kind, level(old, p, kind), evidence(old, p, kind))
}

// level says how sure a move is.
func level(old, p *path, kind ChangeKind) Level {
	switch {
	case !p.validated:
		return Low
	case kind == Rebinding && old.client.IP == p.client.IP:
		return High
	case old.client.IP != p.client.IP && !old.sameID(p) && old.server == p.server:
		return Low // timing alone
	}
	return Medium
}

// sameID says whether two paths have an ID in common.
func (p *path) sameID(other *path) bool {
	for side := range p.ways {
		if id := p.ways[side].id; id.len > 0 && id == other.ways[side].id {
			return true
		}
	}
	return false
}

func evidence(old, p *path, kind ChangeKind) string {
	ids := "IDs that were not seen before, after a probe"
	if old.sameID(p) {
		ids = "the same connection ID"
	}
	what := "another address"
	switch {
	case kind == PreferredAddress:
		what = "the server answers at another address"
	case old.client.IP == p.client.IP:
		what = "another port of the same address"
	case neighbours(old.client, p.client):
		what = "another address of the same network"
	}
	last := old.ways[wire.Client].last
	if last == 0 { // nothing of the client was captured
		last = old.seen()
	}
	quiet := time.Duration(p.first - last).Round(time.Millisecond)
	return fmt.Sprintf("%s, %s; the path before it was silent for %v", ids, what, max(quiet, 0))
}

// change notes a change of path.
func (t *Tracker) change(a *arrival, from, to *path, kind ChangeKind, level Level, evidence string) {
	r := to.record
	if len(r.changes) >= maxChanges {
		t.counters.ChangeOverflow++
		return
	}
	c := PathChange{Kind: kind, Time: time.Unix(0, a.now).UTC(), Confidence: level, Evidence: evidence}
	c.From, c.To = moved(from, to)
	r.changes = append(r.changes, c)
	to.change = len(r.changes)
	t.emit(EventPathChanged, r, func(e *Event) { e.Change = &c })
}

// prober finds the connection that may be trying another path: from the same
// host to the same server, or from the same endpoint to another server. What
// tries a path sends full datagrams, and so does what answers (RFC 9000
// §8.2.1, §8.2.2).
func (t *Tracker) prober(client, server endpoint, s *suspect, a *arrival) *record {
	if s.ways[0].firstLen < probeLen || s.ways[1].firstLen < probeLen {
		return nil
	}
	for _, key := range [...]sourceKey{{anyPort(client), server}, {client: client}} {
		e := t.sources.peek(key)
		if e == nil {
			continue
		}
		for i := len(e.value.records) - 1; i >= 0; i-- {
			r := e.value.records[i]
			t.settle(r)
			if r.established() && r.first < s.first && s.first-r.last < int64(time.Minute) {
				return r
			}
		}
	}
	return nil
}

// alone is how long before a path is tried another connection must have been silent
// to be out of the question.
const alone = int64(5 * time.Second)

// mover finds the connection that may be trying a path from another address, where
// neither ID nor address leads to it: the only one at the server that was alive
// just before.
func (t *Tracker) mover(client, server endpoint, s *suspect, a *arrival) (found *record) {
	e := t.sources.peek(sourceKey{server: server})
	if e == nil || e.value.crowded || s.ways[0].firstLen < probeLen || s.ways[1].firstLen < probeLen {
		return nil
	}
	for _, r := range e.value.records {
		t.settle(r)
		switch {
		case s.first-r.last > alone || r.confidence == GoogleQUIC:
		case found != nil || r.active.client.IP == client.IP:
			return nil // it may be any of them
		case r.established() && r.first < s.first:
			found = r
		}
	}
	return found
}

// probing adds the path that a connection tries, with IDs that nobody has seen.
func (t *Tracker) probing(a *arrival, r *record, client, server endpoint, s *suspect, sure Level) *path {
	p := t.addPath(a, r, client, server)
	p.validated, p.kind = true, Probe
	t.adopt(p, s)
	for side := range r.ends {
		// The length of an end's IDs does not change with the ID.
		if n := r.ends[side].idLen; n > 0 {
			w := &s.ways[0]
			if (wire.Side(side) == wire.Server) != (a.key.a == client) {
				w = &s.ways[1]
			}
			id := idOf(w.prefix[:n])
			t.learnID(r, wire.Side(side), id, a.now)
			p.ways[1-side].id = id
		}
	}
	t.potential.remove(a.key)
	t.learnServer(p, a.now)
	why := "full datagrams to and fro with IDs that were not seen before"
	if sure == Low {
		why += ", from another address, while no other connection was at the server"
	}
	t.change(a, r.active, p, Probe, sure, why)
	return p
}
