package monitor

import (
	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/wire"
)

// rules returns the rules for a flow.
func (x *index) rules(key tuple) (out flowRules) {
	e := x.flows.peek(key)
	if e == nil {
		out.ignored = x.potential.disproved(key) || x.ignores(key)
		return out
	}
	f := &e.value
	p := f.busiest()
	for i := range out.directions {
		r := p.rule(p.side(i == 0))
		if len(f.paths) == 1 || f.onlyHas(p, i == 0, r.id) {
			out.directions[i] = r
		}
	}
	return out
}

// onlyHas reports whether short headers with an ID belong to a path, and cannot be
// taken for those of another connection between the same endpoints ([flow.choose]).
func (f *flow) onlyHas(p *path, fromA bool, id ID) bool {
	for _, other := range f.paths {
		ids := &other.conn.ids[1-other.side(fromA)]
		if other == p && !ids.has(id.bytes[:id.len]) || other != p && ids.mayBe(id) {
			return false
		}
	}
	return true
}

// rule returns the rule for the short headers of a side that [Tracker.shortHeader]
// would do nothing with but count them.
func (p *path) rule(from wire.Side) rule {
	c, sent := p.conn, &p.sent[from]
	switch n := c.ids[1-from].length; {
	case c.confidence == GoogleQUIC && c.handshake != nil:
		return rule{} // there is more of the CHLO
	case c.confidence == GoogleQUIC:
		return rule{path: p, match: datapath.MatchShort}
	case c.move != nil && c.move.usedAt == 0:
		return rule{} // it is only probing yet
	case !p.validated || p != c.active && c.returns < maxReturns:
		return rule{} // the connection may be moving here
	case from == wire.Client && c.answerAt != 0 && c.confirmAt == 0:
		return rule{} // the next packet completes the handshake's round trip
	case n > 0 && int(sent.id.len) != int(n):
		return rule{} // there was no short header yet
	case n > 0:
		return rule{p, datapath.MatchID, sent.id, sent.segment}
	}
	return rule{path: p, match: datapath.MatchID}
}

// sent returns the half of the path whose spin bit the kernel follows by a rule,
// or nil.
func (r *rule) sent(fromA bool) *halfPath {
	if r.match != datapath.MatchID {
		return nil
	}
	return &r.path.sent[r.path.side(fromA)]
}
