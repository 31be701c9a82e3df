package p2p

import (
	"errors"
	"fmt"
	"net"

	"github.com/quicway/quicway/internal/control"
)

// Errors that the errors of this package wrap: use errors.Is.
var (
	// ErrClosed: the [Endpoint] is closed, or was closed during the call. It wraps
	// net.ErrClosed.
	ErrClosed = fmt.Errorf("endpoint closed: %w", net.ErrClosed)

	// ErrConfig: a [Config] or [DialConfig] is invalid.
	ErrConfig = errors.New("invalid configuration")

	// ErrMalformedPeerID: a text is not a [PeerID].
	ErrMalformedPeerID = errors.New("malformed peer ID")

	// ErrMalformedIdentity: a text or a file is not the private key of an [Identity].
	ErrMalformedIdentity = errors.New("malformed identity")

	// ErrIdentityExposed: others than its owner may read or change the file of an
	// [Identity].
	ErrIdentityExposed = errors.New("the identity is not protected")

	// ErrMalformedKnownPeers: a file of [KnownPeers] has a malformed line, or cannot be
	// used.
	ErrMalformedKnownPeers = errors.New("malformed known peers")

	// ErrUnknownPeer: a text is neither a name in [KnownPeers] nor a [PeerID].
	ErrUnknownPeer = errors.New("unknown peer")

	// ErrKnownPeer: [AddKnownPeer] was given a name that another peer has.
	ErrKnownPeer = errors.New("another peer has the name")

	// ErrMalformedRelay: a text is not a relay's URL, or the Addr of a [Relay] is empty
	// or not host:port.
	ErrMalformedRelay = errors.New("malformed relay")

	// ErrMalformedOffer: a text is not an [Offer], or an Offer cannot be answered.
	ErrMalformedOffer = errors.New("malformed offer")

	// ErrPeerMismatch: the other side is not the peer that was dialed, not the dialer
	// that the offer names, or not allowed by [Config.AllowPeer].
	ErrPeerMismatch = errors.New("another peer answered")

	// ErrPeerRefused: the peer closed the connection during the handshake.
	ErrPeerRefused = errors.New("the peer refused")

	// ErrPeerAbsent: nobody has taken the offer out of the relay's mailbox. It comes
	// together with the reason why the wait has ended.
	ErrPeerAbsent = errors.New("the peer has not taken the offer out of the mailbox")

	// ErrPeerGone: the relay reports that the peer has left, and nothing comes from it
	// any more. [Conn.Err] returns it.
	ErrPeerGone = errors.New("the peer is gone")

	// ErrNoDirectPath: the policy is DirectOnly, and there is no direct path.
	ErrNoDirectPath = errors.New("no direct path to the peer")

	// ErrNoPath: neither the direct path nor the relay works, and the idle timeout has
	// passed. [Conn.Err] returns it.
	ErrNoPath = errors.New("no path to the peer")

	// ErrOfferExpired: nobody answered the offer in time. The error text mentions the
	// clock if a wrong one may be the cause.
	ErrOfferExpired = errors.New("the offer has expired")

	// ErrOfferUsed: the offer has been answered before.
	ErrOfferUsed = errors.New("the offer has been used")

	// ErrRelayUnreachable: the relay does not answer.
	ErrRelayUnreachable = errors.New("the relay does not answer")

	// ErrRelayNotAllowed: an offer names a relay with an address that
	// [Config.OfferRelays] does not allow.
	ErrRelayNotAllowed = errors.New("the address of the offer's relay is not allowed")

	// ErrRelayMismatch: the relay's key is not Relay.Pin, or its certificate is not
	// trusted. The error text has the pin of the key that the relay has shown, and
	// Relay.Pin if there is one.
	ErrRelayMismatch = errors.New("the relay's key is not the expected one")

	// ErrRelayRefused: the relay refused a request.
	ErrRelayRefused = errors.New("the relay refused")

	// ErrUnauthorized: the relay does not accept the token. Such an error is an
	// ErrRelayRefused too.
	ErrUnauthorized = errors.New("the relay does not accept the token")

	// ErrNotForwarded: both peers are at the relay, but nothing comes from the other
	// one. The relay, or a firewall in front of it, does not let the peers' packets
	// through, or the other peer is gone. It comes together with the reason why the
	// wait has ended.
	ErrNotForwarded = errors.New("the relay answers, but forwards nothing from the peer")

	// ErrListening: an [Endpoint.Listener] takes the connections of the endpoint.
	ErrListening = errors.New("a listener takes the connections of the endpoint")

	// ErrIdentityInUse: another endpoint with the same [Identity] takes the offers that
	// are addressed to it. A configuration or a machine has been copied.
	ErrIdentityInUse = errors.New("another endpoint with this identity takes its offers")
)

// errNotAllowed: [Config.AllowPeer] does not allow the peer.
var errNotAllowed = fmt.Errorf("%w", ErrPeerMismatch)

// errClaimed: this endpoint has answered the offer, or is answering it.
var errClaimed = fmt.Errorf("%w", ErrOfferUsed)

// refusedError is the refusal of a request by a relay.
type refusedError struct{ problem control.Problem }

func (e *refusedError) Error() string {
	return "the relay refused: " + e.problem.Message
}

func (e *refusedError) Is(target error) bool {
	switch target {
	case ErrRelayRefused:
		return true
	case ErrUnauthorized:
		return e.problem.Code == control.CodeUnauthorized
	}
	return false
}

// refusedAs says whether err is a relay's refusal with a code.
func refusedAs(err error, code control.Code) bool {
	var refused *refusedError
	return errors.As(err, &refused) && refused.problem.Code == code
}
