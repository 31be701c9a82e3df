package quota

import "fmt"

// Action is what is done about a newcomer.
type Action uint8

// The actions.
const (
	// Allow lets it in.
	Allow Action = iota
	// Retry has it show that packets reach its address (RFC 9000 §8.1.2).
	Retry
	// Refuse answers with CONNECTION_REFUSED (RFC 9000 §5.2.2).
	Refuse
	// Drop does not answer.
	Drop

	numActions
)

var actionNames = [numActions]string{Allow: "allow", Retry: "retry", Refuse: "refuse", Drop: "drop"}

// String returns a name fit for a metric's label.
func (a Action) String() string {
	if a < numActions {
		return actionNames[a]
	}
	return fmt.Sprintf("action %d", uint8(a))
}

// Reason says why a packet or an attempt was let in or not.
type Reason uint8

// Why packets pass.
const (
	// PassAllowed: the address is on the allow list.
	PassAllowed Reason = iota
	// PassOther: it is no Initial of a version that is known.
	PassOther
	// PassContinuing: an Initial of a handshake that the server has answered.
	PassContinuing
	// PassFlow: an Initial of an attempt that has been let in.
	PassFlow
	// PassNew: the first Initial of a new attempt.
	PassNew

	// Why packets are dropped, and attempts refused.

	// Denied: the address is on the deny list.
	Denied
	// PacketRate: more packets than the address may send.
	PacketRate
	// ShortInitial: an Initial in a datagram of less than 1200 bytes, which
	// a server must discard (RFC 9000 §14.1).
	ShortInitial
	// Repeated: more of an attempt that was refused a moment ago.
	Repeated
	// AttemptRate: more new attempts than the address may make.
	AttemptRate
	// Connections: the source, or its site, has as many connections as it may.
	Connections
	// ConnectionRate: the source, or its site, makes them too fast.
	ConnectionRate
	// TotalConnections, TotalConnectionRate: the same, of all sources.
	TotalConnections
	TotalConnectionRate
	// HalfOpen: the address is not known to be that of the sender, and too
	// many such handshakes are unfinished. A Retry token helps.
	HalfOpen
	// RequestRate: more requests than the source, or the connection, may make.
	RequestRate

	numReasons
)

var reasonNames = [numReasons]string{
	PassAllowed:         "allowed",
	PassOther:           "other",
	PassContinuing:      "continuing",
	PassFlow:            "flow",
	PassNew:             "new",
	Denied:              "denied",
	PacketRate:          "packet_rate",
	ShortInitial:        "short_initial",
	Repeated:            "repeated",
	AttemptRate:         "attempt_rate",
	Connections:         "connections",
	ConnectionRate:      "connection_rate",
	TotalConnections:    "total_connections",
	TotalConnectionRate: "total_connection_rate",
	HalfOpen:            "half_open",
	RequestRate:         "request_rate",
}

// String returns a name fit for a metric's label.
func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// MarshalText writes the name, as JSON wants it of a map's key.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (r *Reason) UnmarshalText(text []byte) error {
	for why, name := range reasonNames {
		if name == string(text) {
			*r = Reason(why)
			return nil
		}
	}
	return fmt.Errorf("there is no reason %q", text)
}
