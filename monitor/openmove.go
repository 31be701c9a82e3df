package monitor

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/quicway/quicway/internal/wire"
)

const (
	// maxOpenMoves bounds the open moves. The oldest makes room: its connection stays one of its
	// own.
	maxOpenMoves = 256
	// maxProbes is the number of a client's datagrams on a path after which it does not only
	// probe the path.
	maxProbes = 8
	// settling is the time after the first use of a path in which packets on the path before it
	// may still arrive.
	settling = int64(100 * time.Millisecond)
	// maxTurns is how often both a connection and a new path must have been in use between two
	// judgments until the path is not the connection's. It is more than one, because a connection
	// may go back to the path before.
	maxTurns = 2
	// pauses is the number of usual pauses after which silence is hardly a pause, and longPauses
	// that after which it is none.
	pauses, longPauses = 4, 10
	// firstJudgment and lastJudgment are the times between two judgments of an open move. They
	// become longer by a quarter each.
	firstJudgment, lastJudgment = int64(50 * time.Millisecond), int64(time.Second)
	// maxCandidates bounds [PathChange.Candidates].
	maxCandidates = 16
)

// openMove is a path to which one of several connections has moved with new connection IDs.
// While it is open the path belongs to a connection of its own. It is judged by which of the
// choices go on on their own paths, and which fell silent when the path came into use.
type openMove struct {
	path    *path // the first one of its connection
	first   int64 // the time of its first packet
	usedAt  int64 // when the client first used the path for more than a probe; 0: not yet
	choices []choice
	near    int  // see suspects
	crowded bool // see suspects
	change  int  // the index of its latest change in conn.changes

	next, every int64 // the time of the next judgment, and the time between two
	packets     uint64
}

// choice is a connection that may have moved.
type choice struct {
	conn    *connection
	near    bool
	gone    bool   // it was removed
	packets uint64 // of its client on the path in use, at the latest judgment
	turns   uint8  // see maxTurns

	standing standing // at the latest judgment
}

// clientPackets returns the number of the client's packets on the path in use.
func (c *connection) clientPackets() uint64 { return c.active.sent[wire.Client].packets }

// clientLast returns the time of the client's latest packet on the path in use.
func (c *connection) clientLast() int64 { return c.active.sent[wire.Client].last }

// pausedBefore reports whether the client was silent before a time, for longer than a number of
// its usual pauses.
func (c *connection) pausedBefore(at, pauses int64) bool {
	return at-c.clientLast() > pauses*c.active.sent[wire.Client].pauseBefore()
}

// openMoves are the open moves, the oldest first.
type openMoves struct {
	index   *index
	events  *events
	offload *offload
	list    []*openMove
	next    int64 // when one is to be judged
}

// open adds a path to which one of several connections may have moved.
func (o *openMoves) open(p *path, fromClient *candidateDirection, found suspects) {
	if len(o.list) >= maxOpenMoves {
		o.end(o.list[0])
	}
	m := &openMove{path: p, first: p.first, choices: found.choices, near: found.near, crowded: found.crowded}
	p.conn.move = m
	o.list = append(o.list, m)
	o.report(m, Probe, p.first)
	if fromClient.inUse() {
		o.use(m, cmp.Or(fromClient.usedAt, p.seen()))
	}
}

// end ends an open move: its path stays a connection of its own.
func (o *openMoves) end(m *openMove) {
	m.path.conn.move = nil
	o.list = slices.DeleteFunc(o.list, func(other *openMove) bool { return other == m })
}

// forget ends the open move of a connection that is being removed.
func (o *openMoves) forget(c *connection) {
	if c.move != nil {
		o.end(c.move)
	}
}

// packet takes a packet that a client has sent on the path of an open move.
func (o *openMoves) packet(a *arrival, m *openMove) {
	if m.usedAt == 0 && (a.length < probeLen || m.path.conn.clientPackets() >= maxProbes) {
		o.use(m, a.now)
	}
}

// use notes that the client uses the path for more than a probe.
func (o *openMoves) use(m *openMove, at int64) {
	m.usedAt = at
	m.packets = m.path.conn.clientPackets()
	m.every, m.next = firstJudgment, at+settling
	o.next = min(o.next, m.next)
	for i := range m.choices {
		ch := &m.choices[i]
		if o.kept(ch) {
			o.offload.settle(ch.conn)
			ch.packets = ch.conn.clientPackets()
		}
	}
	kind := Migration
	if !slices.ContainsFunc(m.choices, func(ch choice) bool { return ch.gone || ch.conn.active.server() == m.path.server() }) {
		kind = PreferredAddress
	}
	o.report(m, kind, at)
}

// report adds a change to the connection of an open move.
func (o *openMoves) report(m *openMove, kind ChangeKind, at int64) {
	c := m.path.conn
	_, to := moved(m.choices[0].conn.active, m.path)
	change := PathChange{Kind: kind, Time: timeOf(at), To: to}
	m.describe(&change)
	c.changes = append(c.changes, change)
	m.change = len(c.changes) - 1
	m.path.change = uint8(len(c.changes))
	o.events.pathChanged(c, &change)
}

// describe sets the candidates of a change.
func (m *openMove) describe(change *PathChange) {
	change.Confidence, change.Candidates = Low, nil
	left := 0
	for i := range m.choices {
		if ch := &m.choices[i]; ch.turns < maxTurns && !ch.gone {
			if left++; left <= maxCandidates {
				change.Candidates = append(change.Candidates, ch.conn.number)
			}
		}
	}
	change.CandidatesOmitted = max(left-maxCandidates, 0)
	more := ""
	if m.crowded {
		more = "more than "
	}
	others := len(m.choices) - left
	switch {
	case left == 0:
		change.Evidence = fmt.Sprintf("new connection IDs after a probe; of %d connections all go on elsewhere", others)
	case others == 0:
		change.Evidence = fmt.Sprintf("new connection IDs after a probe; one of %s%d connections", more, left)
	default:
		change.Evidence = fmt.Sprintf("new connection IDs after a probe; one of %s%d connections, while %d go on elsewhere", more, left, others)
	}
}

// kept reports whether the connection of a choice has not been removed.
func (o *openMoves) kept(ch *choice) bool {
	if !ch.gone {
		e := o.index.connections.peek(ch.conn.number)
		ch.gone = e == nil || e.value != ch.conn
	}
	return !ch.gone
}

// due reports whether an open move is to be judged.
func (o *openMoves) due(now int64) bool { return len(o.list) > 0 && now >= o.next }

// judge judges the open moves that it is time for, or all.
func (o *openMoves) judge(now int64, all bool) {
	o.next = math.MaxInt64
	for _, m := range slices.Clone(o.list) {
		if m.usedAt == 0 || m.path.conn.move != m {
			continue // it only probes, or was decided with another one
		}
		if all || now >= m.next {
			m.every = min(m.every+m.every/4, lastJudgment)
			m.next = now + m.every
			o.observe(m)
			if c := o.decide(m); c != nil {
				o.resolve(m, c, now, "")
				continue
			}
		}
		o.next = min(o.next, m.next)
	}
}

// observe notes which choices are in use beside the path of an open move.
func (o *openMoves) observe(m *openMove) {
	c := m.path.conn
	o.offload.settle(c)
	used := c.clientPackets() != m.packets
	m.packets = c.clientPackets()
	fewer := false
	for i := range m.choices {
		ch := &m.choices[i]
		if ch.turns >= maxTurns || ch.gone {
			continue
		}
		if !o.kept(ch) {
			fewer, ch.standing = true, silent
			continue
		}
		o.offload.settle(ch.conn)
		n := ch.conn.clientPackets()
		if used && n != ch.packets && ch.conn.clientLast() > m.usedAt+settling {
			ch.turns++
			fewer = fewer || ch.turns == maxTurns
		}
		ch.packets = n
		ch.standing = m.standing(ch)
	}
	if fewer && m.change < len(c.changes) {
		m.describe(&c.changes[m.change])
	}
}

// byID decides an open move by a connection ID that both its connection and one of its choices
// have. c is the connection on whose path the ID was seen.
func (o *openMoves) byID(c *connection, side wire.Side, id ID, now int64) {
	if len(o.list) == 0 || id.len < minLookup {
		return
	}
	e := o.index.ids.peek(id)
	if e == nil {
		return
	}
	for _, owner := range slices.Clone(e.value.list) {
		for _, pair := range [...][2]*connection{{c, owner.conn}, {owner.conn, c}} {
			m := pair[0].move
			if owner.side == side && m != nil && m.has(pair[1]) {
				o.resolve(m, pair[1], now, "a connection ID of both paths")
				return
			}
		}
	}
}

// has reports whether a connection is one of the choices.
func (m *openMove) has(c *connection) bool {
	return slices.ContainsFunc(m.choices, func(ch choice) bool { return ch.conn == c && !ch.gone })
}

// resolve makes the path of an open move, and all else of its connection, another connection's.
// shared is what shows that beyond doubt, if anything.
func (o *openMoves) resolve(m *openMove, c *connection, now int64, shared string) {
	own, old := m.path.conn, c.active
	kind := Migration
	if old.server() != m.path.server() {
		kind = PreferredAddress
	}
	level, evidence := changeLevel(old, m.path, kind), changeEvidence(old, m.path, kind)
	if shared != "" {
		level, evidence = High, shared
	} else if n := len(m.choices); n > 1 {
		still := 0
		for i := range m.choices {
			if m.choices[i].standing == silent {
				still++
			}
		}
		evidence += fmt.Sprintf("; of %d connections %d go on elsewhere, and %d were silent before", n, n-1-still, still)
	}
	o.end(m)
	o.events.emit(EventMerged, own, func(e *Event) { e.MergedInto = c.number })
	changes, active := own.changes, own.active
	o.index.absorb(c, own, now)
	for i := range changes {
		change := &changes[i]
		if i <= m.change {
			change.From, change.To = moved(old, m.path)
			change.Confidence, change.Evidence, change.Candidates, change.CandidatesOmitted = level, evidence, nil, 0
			if change.Kind != Probe {
				change.Kind = kind
			}
		}
		if o.index.keepChange(c, change) {
			active.change = uint8(len(c.changes))
			o.events.pathChanged(c, change)
		}
	}
	if m.usedAt == 0 {
		m.path.kind = Probe
	} else if p := c.pathBetween(active.key); p != nil {
		c.active = p
	}
	o.replace(own, c)
	for _, p := range c.paths {
		o.offload.updateRules(p.key, false)
	}
}

// replace replaces a connection by another one in the choices of the open moves. What one of them
// has been seen to do, the other one has done.
func (o *openMoves) replace(old, c *connection) {
	for _, m := range o.list {
		i := slices.IndexFunc(m.choices, func(ch choice) bool { return ch.conn == old })
		if i < 0 {
			continue
		}
		ch := m.choices[i]
		ch.conn, ch.packets = c, c.clientPackets()
		if j := slices.IndexFunc(m.choices, func(ch choice) bool { return ch.conn == c }); j >= 0 {
			if ch.near && m.choices[j].near {
				m.near--
			}
			ch.near = ch.near || m.choices[j].near
			ch.turns = max(ch.turns, m.choices[j].turns)
			m.choices[i] = ch
			m.choices = slices.Delete(m.choices, j, j+1)
		} else {
			m.choices[i] = ch
		}
	}
}
