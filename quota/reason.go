package quota

import (
	"fmt"
	"slices"
)

// Action is what is done about an attempt, a packet, or a request.
type Action uint8

// The actions.
const (
	// Allow lets it in.
	Allow Action = iota
	// Retry makes the client validate its address by a Retry (RFC 9000 §8.1.2).
	Retry
	// Refuse answers an attempt with CONNECTION_REFUSED (RFC 9000 §5.2.2), and an
	// HTTP request with status 429 or 403.
	Refuse
	// Drop gives no answer.
	Drop

	numActions
)

var actionNames = [numActions]string{Allow: "allow", Retry: "retry", Refuse: "refuse", Drop: "drop"}

// String returns a name that is fit for the label of a metric.
func (a Action) String() string {
	if a < numActions {
		return actionNames[a]
	}
	return fmt.Sprintf("action %d", uint8(a))
}

// MarshalText returns the name.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText parses a name.
func (a *Action) UnmarshalText(text []byte) error {
	i := slices.Index(actionNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("unknown action %q", text)
	}
	*a = Action(i)
	return nil
}

// Reason is why a packet passed or was dropped, or why an attempt or a request was
// refused.
type Reason uint8

// Reasons of packets that pass.
const (
	// PassAllowed: the address is on the allow list.
	PassAllowed Reason = iota
	// PassOther: the packet is not an Initial of a known version.
	PassOther
	// PassContinuing: an Initial of a handshake that the server has answered.
	PassContinuing
	// PassFlow: an Initial of an attempt that was let in before.
	PassFlow
	// PassNew: the first Initial of a new attempt.
	PassNew

	// Reasons of packets that are dropped, and of attempts and requests that are
	// refused.

	// Denied: the address is on the deny list.
	Denied
	// PacketRate: the source or its site sends packets too fast.
	PacketRate
	// ShortInitial: an Initial in a datagram of less than 1200 bytes, which a server
	// must discard (RFC 9000 §14.1).
	ShortInitial
	// Repeated: another datagram of an attempt that was refused a moment ago.
	Repeated
	// AttemptRate: the source or its site makes attempts too fast.
	AttemptRate
	// Connections: the source or its site has all the connections that it may have.
	Connections
	// ConnectionRate: the source or its site makes new connections too fast.
	ConnectionRate
	// TotalConnections: all sources together have all the connections that they may
	// have.
	TotalConnections
	// TotalConnectionRate: all sources together make new connections too fast.
	TotalConnectionRate
	// HalfOpen: the address is not validated, and there are too many half-open
	// attempts. A Retry helps.
	HalfOpen
	// RequestRate: the source, its site, or the connection makes requests too fast.
	RequestRate
	// RouteRate: the same, beyond the limits of a [Route].
	RouteRate

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
	RouteRate:           "route_rate",
}

// String returns a name that is fit for the label of a metric.
func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// MarshalText returns the name. JSON uses it for the keys of maps.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText parses a name.
func (r *Reason) UnmarshalText(text []byte) error {
	i := slices.Index(reasonNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("unknown reason %q", text)
	}
	*r = Reason(i)
	return nil
}
