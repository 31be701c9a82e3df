package monitor

import (
	"encoding/json"
	"io"
)

// Writer writes what a monitor sees, in the format of a program that reads it. [Encoder] is
// one, and packages zeek and eve have others. Each method writes what the format has for it,
// which may be nothing. Call Event for every event, Connection for each connection that is closed,
// and at the end for those that are still kept, then Stats, and Close.
//
// A Writer must not be used concurrently, and does not close the [io.Writer] that it writes to, whose
// errors it returns.
type Writer interface {
	// Event writes an event, as soon as it has happened.
	Event(e *Event) error
	// Connection writes a connection. Its copy in an event does not count.
	Connection(c *Connection) error
	// Stats writes the counters.
	Stats(s *Stats) error
	// Close writes what ends the output. Nothing may be written afterwards.
	Close() error
}

var _ Writer = (*Encoder)(nil)

// Encoder writes JSON lines. Each line has a "type", which is "connection",
// "event" or "stats", and the fields of [Connection], [Event] or [Stats]. Names
// and meanings of fields stay. Later versions may add fields. An Encoder must not
// be used concurrently.
type Encoder struct{ json *json.Encoder }

// NewEncoder returns an encoder that writes to w.
func NewEncoder(w io.Writer) *Encoder { return &Encoder{json.NewEncoder(w)} }

// Connection writes a connection.
func (e *Encoder) Connection(c *Connection) error {
	return e.json.Encode(struct {
		Type string `json:"type"`
		*Connection
	}{"connection", c})
}

// Event writes an event.
func (e *Encoder) Event(ev *Event) error {
	return e.json.Encode(struct {
		Type string `json:"type"`
		*Event
	}{"event", ev})
}

// Stats writes the counters.
func (e *Encoder) Stats(s *Stats) error {
	return e.json.Encode(struct {
		Type string `json:"type"`
		*Stats
	}{"stats", s})
}

// Close implements [Writer]. It writes nothing.
func (e *Encoder) Close() error { return nil }
