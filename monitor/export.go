package monitor

import (
	"encoding/json"
	"io"
)

// Encoder writes JSON lines. Each has a "type": "connection" with the fields of
// [Connection], "event" with those of [Event], or "stats" with those of
// [Stats]. Fields keep their names and meanings; new ones may come.
type Encoder struct{ json *json.Encoder }

// NewEncoder makes an encoder. It is not for concurrent use.
func NewEncoder(w io.Writer) *Encoder { return &Encoder{json.NewEncoder(w)} }

// Connection writes a line about a connection.
func (e *Encoder) Connection(c *Connection) error {
	return e.json.Encode(struct {
		Type string `json:"type"`
		*Connection
	}{"connection", c})
}

// Event writes a line about an event.
func (e *Encoder) Event(ev *Event) error {
	return e.json.Encode(struct {
		Type string `json:"type"`
		*Event
	}{"event", ev})
}

// Stats writes a line with the counters.
func (e *Encoder) Stats(s *Stats) error {
	return e.json.Encode(struct {
		Type string `json:"type"`
		*Stats
	}{"stats", s})
}
