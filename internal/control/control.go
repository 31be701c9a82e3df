// Package control is the relay's control protocol as both ends of it see it:
// the JSON bodies that travel over HTTP/3, their limits, and their strict
// decoding. The rules behind the messages are the relay's.
//
//	POST   /v1/sessions/{session}/legs         Register  -> Registered
//	DELETE /v1/sessions/{session}/legs/{role}            -> 204
//	PUT    /v1/offers/{name}?session=SESSION   text      -> 204
//	GET    /v1/offers/{name}?wait=SECONDS                -> text, or 204 if none came
//	DELETE /v1/offers/{name}/{number}                    -> 204
//	GET    /v1/events                                    -> Event, one JSON object a line
//
// Whatever is refused is answered with a [Problem].
package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/quicway/quicway/cid"
)

// Limits that both ends keep.
const (
	// MaxBody is the most bytes of JSON that one message may have.
	MaxBody = 4 << 10
	// MaxName is the most bytes that the name of an offer may have.
	MaxName = 64
	// MaxWait is the longest that a request for an offer waits for one.
	MaxWait = 60 * time.Second
)

// Paths of the resources, as formats of what varies in them.
const (
	LegsPath   = "/v1/sessions/%s/legs"
	LegPath    = "/v1/sessions/%s/legs/%s"
	OffersPath = "/v1/offers/%s"
	OfferPath  = "/v1/offers/%s/%d"
	EventsPath = "/v1/events"
)

// Fields of the answer that hands out an offer.
const (
	// OfferField is the number that the offer is acknowledged by. An offer
	// that is neither acknowledged nor joined is handed out again.
	OfferField = "Quicway-Offer"
	// SenderField tells the senders of offers apart, and nothing else of them.
	SenderField = "Quicway-Sender"
)

// SessionParameter of the request that leaves an offer names its session, so that
// the relay forgets the offer when the session has been joined.
const SessionParameter = "session"

// AgainParameter of a request for an offer is after how many seconds an offer is
// handed out again on the same connection. Without it that happens on others only.
const AgainParameter = "again"

// Schemes of the Authorization header (RFC 9110 §11.6.2).
const (
	// Bearer introduces the relay's access token, a join or a resume token.
	Bearer = "Bearer "
	// Leg introduces the leg's own key, in the text form of [cid.Key].
	Leg = "Leg "
)

// ErrBody is returned by [Decode] for a body that is no valid message.
var ErrBody = errors.New("malformed body")

// Register asks for a leg, refreshes it, or moves it to the address that the
// request came from.
type Register struct {
	// Role says which end of the session this is.
	Role Role `json:"role"`
	// Key makes the connection IDs of this leg, and proves whose leg it is.
	Key cid.Key `json:"key"`
	// Next is the counter of the next ID that the leg will generate, so
	// that a relay that forgot the leg finds its place again.
	Next uint64 `json:"next,omitempty"`
	// InitialID is the Destination Connection ID of the dialer's first
	// Initial, 8 to 20 bytes (RFC 9000 §7.2), which only the accepter's
	// leg registers: it came with the offer. Zero: none.
	InitialID cid.ID `json:"initial_dcid,omitzero"`
	// TTL is how long the leg may live without traffic or refresh, in
	// seconds. Zero, or more than the relay grants: what the relay grants.
	TTL uint32 `json:"ttl,omitempty"`
}

// Validate says what is wrong with a request that decoded well.
func (r *Register) Validate() error {
	if r.Key == (cid.Key{}) {
		return fmt.Errorf("%w: key is missing", ErrBody)
	}
	if r.InitialID.IsZero() {
		return nil
	}
	if r.Role != Accepter {
		return fmt.Errorf("%w: only the accepter registers initial_dcid", ErrBody)
	}
	if n := r.InitialID.Len(); n < 8 {
		return fmt.Errorf("%w: initial_dcid has %d bytes, want 8 to 20", ErrBody, n)
	}
	return nil
}

// Registered is the answer to [Register].
type Registered struct {
	// Observed is the sender's address as the relay's QUIC connection has
	// validated it (RFC 9000 §8).
	Observed netip.AddrPort `json:"observed"`
	// Sight numbers the addresses of a control connection: of two, the one
	// with the higher number is the later.
	Sight uint64 `json:"sight"`
	// TTL is what was granted, in seconds.
	TTL uint32 `json:"ttl"`
	// Low and High bound the counters of the IDs that are routed now.
	Low  uint64 `json:"low"`
	High uint64 `json:"high"`
	// Join admits the second leg, once. Only the dialer gets it.
	Join string `json:"join,omitempty"`
	// Resume admits this leg, with its key, to a relay that has restarted.
	Resume string `json:"resume"`
}

// EventType says what an [Event] tells.
type EventType string

// The events.
const (
	// EventObserved: the address of this control connection, at its
	// beginning and whenever it has changed.
	EventObserved EventType = "observed"
	// EventJoined: the other leg of a session has been registered.
	EventJoined EventType = "joined"
	// EventGone: the other leg of a session has ended or expired.
	EventGone EventType = "gone"
	// EventShutdown: the relay is about to stop.
	EventShutdown EventType = "shutdown"
)

// Event is something that the relay tells by itself.
type Event struct {
	Type     EventType      `json:"type"`
	Observed netip.AddrPort `json:"observed,omitzero"`
	Sight    uint64         `json:"sight,omitzero"` // as in Registered
	Session  SessionID      `json:"session,omitzero"`
}

// Code names a refusal so that a program can act on it.
type Code string

// The refusals.
const (
	CodeMalformed    Code = "malformed"
	CodeUnauthorized Code = "unauthorized"
	CodeForbidden    Code = "forbidden"
	CodeConflict     Code = "conflict"
	CodeNotFound     Code = "not_found"
	CodeLimit        Code = "limit"
	CodeShutdown     Code = "shutdown"
)

// Problem is the body of every answer that refuses.
type Problem struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Error makes a Problem an error.
func (p *Problem) Error() string { return string(p.Code) + ": " + p.Message }

// Decode reads one JSON message into v. It returns ErrBody for anything else
// than exactly one message of at most [MaxBody] bytes.
func Decode(r io.Reader, v any) error {
	b, err := io.ReadAll(io.LimitReader(r, MaxBody+1))
	if err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	if len(b) > MaxBody {
		return fmt.Errorf("%w: more than %d bytes", ErrBody, MaxBody)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", ErrBody, err)
	}
	return nil
}
