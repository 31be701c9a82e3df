// Package control has the messages of the protocol between a relay and its clients: JSON
// bodies of HTTP/3 requests and answers, their limits, and their decoding. The rules for
// them are in package relay.
//
//	POST   /v1/sessions/{session}/legs         Register  -> Registered
//	DELETE /v1/sessions/{session}/legs/{role}            -> 204
//	PUT    /v1/offers/{name}?session=SESSION   text      -> 204
//	GET    /v1/offers/{name}?wait=SECONDS                -> text, or 204 if there is none
//	GET    /v1/offers/{name}?wait=SECONDS&stream=1       -> Offered and text, as often as offers come
//	DELETE /v1/offers/{name}/{number}                    -> 204
//	GET    /v1/events                                    -> Event, one JSON object per line
//	GET    /v1/relays                                    -> Relays
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
	RelaysPath = "/v1/relays"
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

// Media types of answers that last.
const (
	// EventsType: one JSON object per line, each an [Event].
	EventsType = "application/jsonl"
	// OffersType: lines of JSON, each an [Offered], and after each the offer's text.
	OffersType = "application/quicway-offers"
)

// SessionParameter is the query parameter of a PUT of an offer that has the ID of the
// offer's session. The relay removes the offer when that session has been joined.
const SessionParameter = "session"

// AgainParameter is the query parameter of a GET of an offer that says after how many seconds
// an offer may be handed out again on the same connection. Without it, an offer is only handed
// out again on other connections.
const AgainParameter = "again"

// StreamParameter is the query parameter of a GET of an offer that lets the relay answer with
// [OffersType]: it hands out all offers that come in the time that the request waits. A relay
// that does not know the parameter hands out one.
const StreamParameter = "stream"

// Offered precedes an offer in an answer of the type [OffersType].
type Offered struct {
	// Number and Sender are those of OfferField and SenderField.
	Number uint64 `json:"number"`
	Sender string `json:"sender"`
	// Size is the length of the offer's text in bytes, which follows the line.
	Size int `json:"size"`
	// Problem, if not nil, is why no more offers come. There is no offer then, and the
	// answer ends.
	Problem *Problem `json:"problem,omitempty"`
}

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
	// Offer is an offer of the dialer's, for which the relay does what it does for a PUT
	// of an offer, once it has registered the leg. nil: none. An old relay ignores it.
	Offer *LeftOffer `json:"offer,omitempty"`
}

// LeftOffer is an offer that is left in the mailbox together with the registration of
// its session. Its join token is the [JoinToken] of the leg.
type LeftOffer struct {
	// Name is the name that the offer is for, as in the path of a PUT.
	Name string `json:"name"`
	// Text is the offer.
	Text string `json:"text"`
	// Relay is the address of the relay that the offer names. A relay that advertises
	// another address does not leave the offer in its mailbox.
	Relay string `json:"relay,omitempty"`
}

// Validate returns an error that wraps ErrBody if a field is missing or invalid.
func (r *Register) Validate() error {
	if r.Key == (cid.Key{}) {
		return fmt.Errorf("%w: key is missing", ErrBody)
	}
	if r.Offer != nil && (r.Role != Dialer || r.Offer.Text == "") {
		return fmt.Errorf("%w: only the dialer leaves an offer, which is not empty", ErrBody)
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
	// Relay is where the leg has been registered, and what peers should be told. The
	// zero Member, from a relay that does not advertise an address, stands for the
	// address that the client has used.
	Relay Member `json:"relay,omitzero"`
	// Instance is a random ID of the relay's process, by which the client notices that
	// two addresses lead to one relay. An old relay has none.
	Instance string `json:"instance,omitempty"`
	// Offered says that the relay has taken the offer of the request, and Problem why it
	// has refused the offer. The leg is registered in either case. An old relay does
	// neither: then the client leaves the offer with a PUT, with the token in Join.
	Offered bool     `json:"offered,omitempty"`
	Problem *Problem `json:"offer_problem,omitempty"`
	// Held says that the relay has held what the leg sent just before it was registered,
	// and has forwarded all of it. An old relay drops such packets.
	Held bool `json:"held,omitempty"`
}

// Member is one of several relays that share a secret, as clients reach it.
type Member struct {
	// Addr is the host and the UDP port.
	Addr string `json:"addr"`
	// Pin is the hash of the relay's key, in the text form of a peer's ID. Empty: that
	// of the relay that the message comes from.
	Pin string `json:"pin,omitempty"`
	// Zone names the place where the relay is. Relays with different zones are not
	// expected to fail together.
	Zone string `json:"zone,omitempty"`
	// Draining says that the relay takes no new sessions, because it is about to stop.
	Draining bool `json:"draining,omitempty"`
}

// MaxMembers is the maximum number of relays in a message.
const MaxMembers = 16

// Relays are the relays that a relay knows, with itself first. The Addr of the first is
// empty if that relay advertises no address: then it is the address that the client has used.
type Relays struct {
	Relays []Member `json:"relays"`
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
	// EventEvicted: the mailbox needed the room of the offer of a session.
	EventEvicted EventType = "evicted"
	// EventShutdown: the relay is about to stop.
	EventShutdown EventType = "shutdown"
)

// Event is a message that the relay sends without a request of its own.
type Event struct {
	Type EventType `json:"type"`
	// Observed, ObservedSeq and Instance are those of [Registered], for EventObserved.
	Observed    netip.AddrPort `json:"observed,omitzero"`
	ObservedSeq uint64         `json:"sight,omitzero"`
	Instance    string         `json:"instance,omitempty"`
	// Session is the session, for EventJoined, EventGone and EventEvicted.
	Session SessionID `json:"session,omitzero"`
	// Relays are where the client should go, for EventShutdown, at most MaxMembers. A
	// relay that stands alone names none.
	Relays []Member `json:"relays,omitempty"`
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
	// CodeElsewhere: the client should ask the relay that the Problem names.
	CodeElsewhere Code = "elsewhere"
)

// Problem is the body of an answer that refuses a request.
type Problem struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	// Relay is where the client should ask instead, for CodeElsewhere.
	Relay Member `json:"relay,omitzero"`
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
