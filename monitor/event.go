package monitor

import (
	"log/slog"
	"time"
)

// EventKind is what an event is about.
type EventKind uint8

// The kinds of events.
const (
	// EventNew: the connection was seen for the first time.
	EventNew EventKind = iota
	// EventIdentified: the connection's ClientHello or ServerHello was read.
	EventIdentified
	// EventPathChanged: the connection has moved, or tries another path.
	// Event.Change describes it.
	EventPathChanged
	// EventRTT: a round trip was measured, by the handshake, or by the spin bit at
	// most once a second for each connection. Event.RTT has it.
	EventRTT
	// EventClosed: the connection was removed. Event.Reason says why.
	EventClosed
	// EventMerged: the connection has turned out to be a part of an earlier one, which has moved
	// to its path ([PathChange.Candidates]). Event.MergedInto has that one's number. It has got
	// the paths, the connection IDs and the packets. The connection itself ends without
	// EventClosed.
	EventMerged
)

var eventNames = [...]string{"new", "identified", "path_change", "rtt", "closed", "merged"}

// String returns the kind's name in JSON.
func (k EventKind) String() string { return name(eventNames[:], k) }

// MarshalText implements [encoding.TextMarshaler].
func (k EventKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Reason says why a connection was removed.
type Reason uint8

// The reasons.
const (
	// StillOpen: the connection was not removed.
	StillOpen Reason = iota
	// Idle: there were no packets for [Config.Idle].
	Idle
	// Evicted: the connection was removed to make room for another one.
	Evicted
)

var reasonNames = [...]string{"", "idle", "evicted"}

// String returns the reason's name in JSON.
func (r Reason) String() string { return name(reasonNames[:], r) }

// MarshalText implements [encoding.TextMarshaler].
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Event is something that happened to a connection.
type Event struct {
	Kind EventKind `json:"event"`
	// Time is the time of the packet that showed it.
	Time time.Time `json:"time"`
	// Connection is a copy of what was known at that time.
	Connection Connection `json:"connection"`
	// ServerHello is set for EventIdentified if the ServerHello was read and not the ClientHello.
	ServerHello bool `json:"server_hello,omitempty"`
	// Change is set for EventPathChanged.
	Change *PathChange `json:"change,omitempty"`
	// RTT is the whole round trip. It is set for EventRTT.
	RTT Milliseconds `json:"rtt_ms,omitempty"`
	// Reason is set for EventClosed.
	Reason Reason `json:"reason,omitempty"`
	// MergedInto is the number of the connection that goes on. It is set for EventMerged.
	MergedInto uint64 `json:"merged_into,omitempty"`
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
	if e.MergedInto != 0 {
		attrs = append(attrs, slog.Uint64("merged_into", e.MergedInto))
	}
	if e.Reason != StillOpen {
		attrs = append(attrs, slog.String("reason", e.Reason.String()))
	}
	return slog.GroupValue(attrs...)
}
