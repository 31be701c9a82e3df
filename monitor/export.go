package monitor

import (
	"encoding/json"
	"io"
)

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
