package monitor

import "github.com/quicway/quicway/internal/wire"

const (
	// probeLen is the least length of a datagram that probes a path (RFC 9000
	// §8.2.1).
	probeLen = 1200
	// movedAfter is the number of packets of the client in a row, with none on
	// the path in use, after which it has moved.
	movedAfter = 4
	// movedAfterOneWay is that number if the other direction is not captured.
	movedAfterOneWay = 8
	// maxReturns is the number of moves back to earlier paths after which a
	// connection is taken to use several paths at a time.
	maxReturns = 4
)

// evaluate decides whether a connection has moved to a path that is not, or not
// yet, the one in use.
func (t *Tracker) evaluate(a *arrival, p *path, from wire.Side) {
	c := p.conn
	if !p.validated && p.bothWays() {
		p.validated = true
		if p.kind != Probe && p != c.active {
			t.index.learnServer(p, a.now)
			t.move(a, p, p.kind)
			return
		}
	}
	if p == c.active {
		return
	}
	if from != wire.Client && !c.silent(wire.Client) {
		return
	}
	t.offload.fetch(c.active.key)
	if n := c.active.sent[from].packets; n != p.activePackets {
		p.activePackets, p.inARow = n, 0
	}
	p.inARow++
	switch {
	case p.inARow < movedAfter:
	case p.validated:
		kind := p.kind
		if kind == NoChange || kind == Probe {
			kind = Migration
		}
		if c.active.server() != p.server() {
			kind = PreferredAddress
		}
		t.move(a, p, kind)
	case p.inARow == movedAfterOneWay && p.kind != Probe && c.silent(1-from):
		t.move(a, p, p.kind)
	}
}

// move makes a path the one in use.
func (t *Tracker) move(a *arrival, p *path, kind ChangeKind) {
	c := p.conn
	old := c.active
	c.active = p
	for _, other := range c.paths {
		other.inARow = 0
	}
	if p.change != 0 && c.changes[p.change-1].Kind != Probe || p == c.paths[0] {
		c.returns++ // it has been in use before
	}
	change := PathChange{Kind: kind, Time: timeOf(a.now)}
	switch {
	case c.returns > maxReturns:
		return
	case c.returns == maxReturns:
		change.Kind, change.Confidence, change.Evidence = Multipath, Medium, "packets alternate between two paths"
	default:
		change.Confidence, change.Evidence = changeLevel(old, p, kind), changeEvidence(old, p, kind)
	}
	if added, ok := t.index.change(old, p, change); ok {
		t.events.pathChanged(c, added)
	}
}
