package monitor

import (
	"slices"

	"github.com/quicway/quicway/internal/wire"
)

// standing is what a choice of an open move has done since the new path came into use.
type standing uint8

const (
	pausing    standing = iota // it was silent since then, but not for long enough to tell
	elsewhere                  // it goes on on its own path
	halted                     // it went on for a while, and has been silent since
	silent                     // it had been silent before the new path's first packet
	lulled                     // it was silent before that, for longer than usual but not for long
	fellSilent                 // it fell silent at that moment
)

// standing returns what a choice has done. Its silence counts only up to the latest packet of the
// client on the new path.
func (m *openMove) standing(ch *choice) standing {
	switch {
	case ch.gone:
		return silent
	case ch.turns >= maxTurns:
		return elsewhere
	case ch.conn.clientLast() > m.usedAt+settling:
		return halted
	case ch.conn.pausedBefore(m.first, longPauses):
		return silent
	case ch.conn.pausedBefore(m.first, pauses):
		return lulled
	}
	quiet := m.path.conn.clientLast() - max(ch.conn.clientLast(), m.usedAt)
	if quiet < pauses*ch.conn.active.sent[wire.Client].pause() {
		return pausing
	}
	return fellSilent
}

// decide returns the connection that has moved, or nil if that is not certain: the only one that
// fell silent when the path came into use. Connections of other hosts count only if none of
// the same host may have moved.
func (o *openMoves) decide(m *openMove) *connection {
	if m.crowded {
		return nil
	}
	near := m.near > 0 && !m.all(true, elsewhere)
	var fell, still *connection
	stopped, others := 0, 0 // others had been silent before
	for i := range m.choices {
		ch := &m.choices[i]
		switch {
		case ch.near != near:
		case ch.standing == pausing || ch.standing == halted && !o.explained(m, ch.conn):
			return nil
		case ch.standing == silent:
			others++
			still = ch.conn
		case ch.standing == lulled:
			stopped++
		case ch.standing == fellSilent:
			stopped++
			fell = ch.conn
		}
	}
	switch {
	case fell != nil && stopped == 1 && others == 0:
		return fell
	case fell != nil:
		return o.matched(m)
	case stopped > 0:
	case near && m.near == 1 && others == 1 && m.all(false, elsewhere, silent):
		if m.path.conn.clientLast()-m.usedAt >= pauses*unknownPause {
			return still
		}
	}
	return nil
}

// all reports whether all choices of the same host, or of others, have one of some standings.
func (m *openMove) all(near bool, want ...standing) bool {
	for i := range m.choices {
		if ch := &m.choices[i]; ch.near == near {
			if ch.gone || !slices.Contains(want, ch.standing) {
				return false
			}
		}
	}
	return true
}

// standingOf returns what a connection has done. It is elsewhere if it is no choice.
func (m *openMove) standingOf(c *connection) standing {
	if m.usedAt != 0 {
		for i := range m.choices {
			if ch := &m.choices[i]; ch.conn == c {
				return ch.standing
			}
		}
	}
	return elsewhere
}

// may reports whether a connection may have moved to the path of an open move.
func (m *openMove) may(c *connection) bool {
	s := m.standingOf(c)
	return s == pausing || s == lulled || s == fellSilent
}

// explained reports whether a connection that has halted has most likely moved elsewhere.
func (o *openMoves) explained(m *openMove, c *connection) bool {
	for _, other := range o.list {
		if other != m && other.may(c) {
			return true
		}
	}
	return false
}
