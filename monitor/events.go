package monitor

import (
	"sync/atomic"
	"time"
)

// events are the events that have not been taken yet. The tracker's mutex guards
// all but wanted.
type events struct {
	wanted  atomic.Bool // somebody reads events
	clock   *clock
	seed    uint16 // of Community IDs
	filter  *Filter
	pending []Event
}

// emit adds an event if somebody reads events and the filter selects the connection. If the
// filter has done so only now it adds an EventNew first. fill may be nil.
func (e *events) emit(kind EventKind, c *connection, fill func(*Event)) {
	if !e.wanted.Load() {
		return
	}
	if !c.selectedBy(e.filter) {
		c.withheld = c.withheld || kind == EventNew
		return
	}
	if c.withheld {
		c.withheld = false
		e.add(EventNew, c, nil)
	}
	e.add(kind, c, fill)
}

// add adds an event.
func (e *events) add(kind EventKind, c *connection, fill func(*Event)) {
	event := Event{Kind: kind, Time: timeOf(e.clock.now), Connection: c.snapshot(e.clock.now, e.seed)}
	if fill != nil {
		fill(&event)
	}
	e.pending = append(e.pending, event)
}

// pathChanged adds an event for a change of path.
func (e *events) pathChanged(c *connection, change *PathChange) {
	e.emit(EventPathChanged, c, func(e *Event) { e.Change = change })
}

// handshakeRTT adds an event for the round trip of a handshake, unless the clock was set back in it.
func (e *events) handshakeRTT(c *connection) {
	if c.confirmAt < c.initialAt {
		return
	}
	e.emit(EventRTT, c, func(e *Event) { e.RTT = Milliseconds(c.confirmAt - c.initialAt) })
}

// spinRTT adds an event for a round trip by the spin bit, at most once a second for
// each connection.
func (e *events) spinRTT(c *connection, rtt int64) {
	if e.wanted.Load() && e.clock.now-c.lastSpinEvent >= int64(time.Second) {
		c.lastSpinEvent = e.clock.now
		e.emit(EventRTT, c, func(e *Event) { e.RTT = Milliseconds(rtt) })
	}
}

// take returns the pending events and removes them.
func (e *events) take() []Event {
	out := e.pending
	e.pending = nil
	return out
}
