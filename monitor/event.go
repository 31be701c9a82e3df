package monitor

import (
	"log/slog"
	"time"
)

// EventKind is what an event is about.
type EventKind uint8

// The kinds.
const (
	// EventNew: a connection was seen for the first time.
	EventNew EventKind = iota
	// EventIdentified: its ClientHello, or its ServerHello, has been read.
	EventIdentified
	// EventPathChanged: it moved, or tries to. Change says how.
	EventPathChanged
	// EventRTT: a round trip was measured, by the handshake or the spin bit; of the
	// latter at most one a second.
	EventRTT
	// EventClosed: it is no longer kept. Reason says why.
	EventClosed
)

var eventNames = [...]string{"new", "identified", "path_change", "rtt", "closed"}

// String returns the name that JSON has.
func (k EventKind) String() string { return name(eventNames[:], k) }

// MarshalText implements [encoding.TextMarshaler].
func (k EventKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Reason says why a connection is no longer kept.
type Reason uint8

// The reasons.
const (
	// StillOpen: it is kept.
	StillOpen Reason = iota
	// Idle: nothing came for [Config.Idle].
	Idle
	// Evicted: others needed the room.
	Evicted
)

var reasonNames = [...]string{"", "idle", "evicted"}

// String returns the name that JSON has.
func (r Reason) String() string { return name(reasonNames[:], r) }

// MarshalText implements [encoding.TextMarshaler].
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Event is something that happened to a connection.
type Event struct {
	Kind EventKind `json:"event"`
	// Time is that of the packet that showed it.
	Time time.Time `json:"time"`
	// Connection is what was known then: a copy.
	Connection Connection `json:"connection"`
	// Change is that of EventPathChanged.
	Change *PathChange `json:"change,omitempty"`
	// RTT is that of EventRTT: the whole round trip.
	RTT Milliseconds `json:"rtt_ms,omitempty"`
	// Reason is that of EventClosed.
	Reason Reason `json:"reason,omitempty"`
}

// LogValue implements [slog.LogValuer].
func (e Event) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("event", e.Kind.String()), slog.Any("connection", e.Connection)}
	if e.Change != nil {
		attrs = append(attrs, slog.String("change", e.Change.Kind.String()),
			slog.Any("from", e.Change.From), slog.Any("to", e.Change.To))
	}
	if e.RTT != 0 {
		attrs = append(attrs, slog.Duration("rtt", e.RTT.Duration()))
	}
	if e.Reason != StillOpen {
		attrs = append(attrs, slog.String("reason", e.Reason.String()))
	}
	return slog.GroupValue(attrs...)
}
