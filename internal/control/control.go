// Package control has the messages of the protocol between a relay and its clients: JSON
// bodies of HTTP/3 requests and answers, their limits, and their decoding. The rules for
// them are in package relay.
//
//	POST   /v1/sessions/{session}/legs         Register  -> Registered
//	DELETE /v1/sessions/{session}/legs/{role}            -> 204
//	PUT    /v1/offers/{name}?session=SESSION   text      -> 204
//	GET    /v1/offers/{name}?wait=SECONDS                -> text, or 204 if there is none
//	DELETE /v1/offers/{name}/{number}                    -> 204
//	GET    /v1/events                                    -> Event, one JSON object per line
//
// The answer to a request that is refused is a [Problem].
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

// Limits of the protocol.
const (
	// MaxBody is the maximum size of a JSON message, in bytes.
	MaxBody = 4 << 10
	// MaxName is the maximum length of an offer's name, in bytes.
	MaxName = 64
	// MaxWait is the maximum time that a request waits for an offer.
	MaxWait = 60 * time.Second
)

// Paths of the resources, as formats for [fmt.Sprintf].
const (
	LegsPath   = "/v1/sessions/%s/legs"
	LegPath    = "/v1/sessions/%s/legs/%s"
	OffersPath = "/v1/offers/%s"
	OfferPath  = "/v1/offers/%s/%d"
	EventsPath = "/v1/events"
)

// Header fields of the answer with an offer.
const (
	// OfferField is the number of the offer, by which it is acknowledged. The relay
	// hands out an offer again until it is acknowledged or its session is joined.
	OfferField = "Quicway-Offer"
	// SenderField is a name for the sender of the offer, by which the client can tell
	// senders apart. It reveals nothing else.
	SenderField = "Quicway-Sender"
)

// SessionParameter is the query parameter of a PUT of an offer that has the ID of the
// offer's session. The relay removes the offer when that session has been joined.
const SessionParameter = "session"

// AgainParameter is the query parameter of a GET of an offer that says after how many seconds
// an offer may be handed out again on the same connection. Without it, an offer is only handed
// out again on other connections.
const AgainParameter = "again"

// Schemes of the Authorization header (RFC 9110 §11.6.2).
const (
	// Bearer precedes an access token, a join token or a resume token.
	Bearer = "Bearer "
	// Leg precedes the key of a leg, in the text form of [cid.Key].
	Leg = "Leg "
)

// ErrBody is wrapped by the errors about a malformed body, or a malformed part of the URL.
var ErrBody = errors.New("malformed body")

// Register registers a leg, refreshes it, or moves it to the address of the connection that
// the request comes on.
type Register struct {
	// Role is the end of the session.
	Role Role `json:"role"`
	// Key is the key from which the leg's connection IDs are made. It also proves
	// that the leg belongs to the client.
	Key cid.Key `json:"key"`
	// Next is the counter of the next ID that the leg will make, so that a relay that
	// has forgotten the leg knows which IDs it uses.
	Next uint64 `json:"next,omitempty"`
	// InitialID is the Destination Connection ID of the dialer's first Initial, 8 to
	// 20 bytes (RFC 9000 §7.2). Only the accepter sends it, which has got it with the
	// offer. Zero: none.
	InitialID cid.ID `json:"initial_dcid,omitzero"`
	// TTL is how long the leg should live without packets or a refresh, in seconds.
	// Zero means the relay's maximum, which also bounds it.
	TTL uint32 `json:"ttl,omitempty"`
}

// Validate returns an error that wraps ErrBody if a field is missing or invalid.
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
	// Observed is the client's address, which the relay's QUIC has validated
	// (RFC 9000 §8).
	Observed netip.AddrPort `json:"observed"`
	// ObservedSeq is the number of the address: of two addresses of one control connection,
	// the one with the higher number is the later one.
	ObservedSeq uint64 `json:"sight"`
	// TTL is how long the leg lives without packets or a refresh, in seconds.
	TTL uint32 `json:"ttl"`
	// Low and High are the range of counters whose IDs the relay knows: from Low up
	// to, but not including, High.
	Low  uint64 `json:"low"`
	High uint64 `json:"high"`
	// Join is the token with which the accepter can register its leg, once. Only the
	// dialer gets it.
	Join string `json:"join,omitempty"`
	// Resume is the token with which the leg, with the same key, can be registered
	// again at a relay that has restarted.
	Resume string `json:"resume"`
}

// EventType is the type of an [Event].
type EventType string

// The events.
const (
	// EventObserved: the client's address, when the client begins to read events and
	// whenever the address has changed.
	EventObserved EventType = "observed"
	// EventJoined: the other leg of a session has been registered.
	EventJoined EventType = "joined"
	// EventGone: the other leg of a session has ended or expired.
	EventGone EventType = "gone"
	// EventShutdown: the relay is about to stop.
	EventShutdown EventType = "shutdown"
)

// Event is a message that the relay sends without a request of its own.
type Event struct {
	Type EventType `json:"type"`
	// Observed and ObservedSeq are those of [Registered], for EventObserved.
	Observed    netip.AddrPort `json:"observed,omitzero"`
	ObservedSeq uint64         `json:"sight,omitzero"`
	// Session is the session, for EventJoined and EventGone.
	Session SessionID `json:"session,omitzero"`
}

// Code is the kind of a [Problem].
type Code string

// The codes.
const (
	CodeMalformed    Code = "malformed"
	CodeUnauthorized Code = "unauthorized"
	CodeForbidden    Code = "forbidden"
	CodeConflict     Code = "conflict"
	CodeNotFound     Code = "not_found"
	CodeLimit        Code = "limit"
	CodeShutdown     Code = "shutdown"
)

// Problem is the body of an answer that refuses a request.
type Problem struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Error implements error.
func (p *Problem) Error() string { return string(p.Code) + ": " + p.Message }

// Decode reads r to its end, and decodes it into v. It returns an error that wraps ErrBody
// unless r has exactly one JSON value of at most [MaxBody] bytes.
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
