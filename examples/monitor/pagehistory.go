package main

import (
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/quicway/quicway/monitor"
)

// Limits of what is remembered of events.
const (
	maxRoundTrips = 120  // of a connection
	maxRemembered = 4096 // connections with round trips
	maxMoves      = 20   // changes of path
	maxEnded      = 1000 // connections that have ended
)

// history is what only events tell: round trips, changes of path, and connections that
// have ended.
type history struct {
	keepEnded time.Duration

	mu    sync.Mutex // guards the following
	over  bool       // there are no more events
	rtts  map[uint64][]roundTrip
	moves []move // the latest last
	moved uint64 // changes of path
	ended []ended
}

// roundTrip is a measured round trip.
type roundTrip struct {
	Time time.Time `json:"time"`
	RTT  float64   `json:"ms"`
	By   string    `json:"by"` // handshake or spin
}

// move is a change of path on the page.
type move struct {
	Sequence   uint64             `json:"sequence"` // counts them from 1
	Number     uint64             `json:"number"`   // of the connection
	Name       string             `json:"name"`
	Kind       monitor.ChangeKind `json:"kind"`
	From       string             `json:"from"`
	To         string             `json:"to"`
	Confidence monitor.Level      `json:"confidence"`
	Time       time.Time          `json:"time"`
}

// ended is a connection that the monitor no longer keeps.
type ended struct {
	monitor.Connection
	reason monitor.Reason
	rtts   []roundTrip
	at     time.Time // by this host's clock
}

// follow takes all events.
func (h *history) follow(events iter.Seq[monitor.Event]) {
	for e := range events {
		h.add(&e, time.Now())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
}

// add takes an event.
func (h *history) add(e *monitor.Event, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	number := e.Connection.Number
	switch e.Kind {
	case monitor.EventRTT:
		if _, ok := h.rtts[number]; ok || len(h.rtts) < maxRemembered {
			h.rtts[number] = latest(h.rtts[number], maxRoundTrips, roundTripOf(e, !ok))
		}
	case monitor.EventPathChanged:
		h.moved++
		h.moves = latest(h.moves, maxMoves, h.moveOf(e))
	case monitor.EventClosed:
		h.ended = latest(h.ended, maxEnded, ended{e.Connection, e.Reason, h.rtts[number], now})
		delete(h.rtts, number)
	case monitor.EventMerged:
		delete(h.rtts, number)
	}
}

// roundTripOf returns the round trip of an event. It is that of the handshake if it is the
// connection's first one and the sum of the handshake's halves.
func roundTripOf(e *monitor.Event, first bool) roundTrip {
	out := roundTrip{Time: e.Time, RTT: float64(e.RTT) / 1e6, By: "spin"}
	if both := e.Connection.Handshake; first && e.RTT == both.ServerSide+both.ClientSide {
		out.By = "handshake"
	}
	return out
}

// moveOf returns the latest change of path. The caller holds h.mu.
func (h *history) moveOf(e *monitor.Event) move {
	return move{
		Sequence: h.moved, Number: e.Connection.Number, Name: nameOf(&e.Connection), Time: e.Time,
		Kind: e.Change.Kind, From: e.Change.From.String(), To: e.Change.To.String(), Confidence: e.Change.Confidence,
	}
}

// latestMoves returns the number of changes of path, and the latest first.
func (h *history) latestMoves() (uint64, []move) {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := append([]move{}, h.moves...)
	slices.Reverse(out)
	return h.moved, out
}

// lately returns the connections that have ended within keepEnded, and forgets earlier ones. If
// there are no more events those that are left stay. running reports whether there may be more.
func (h *history) lately(now time.Time) (all []ended, running bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.over {
		h.ended = slices.DeleteFunc(h.ended, func(e ended) bool { return now.Sub(e.at) > h.keepEnded })
	}
	return slices.Clone(h.ended), !h.over
}

// roundTrips returns the round trips of a connection.
func (h *history) roundTrips(number uint64) []roundTrip {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.rtts[number])
}
