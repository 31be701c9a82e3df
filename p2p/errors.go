package p2p

import (
	"errors"
	"fmt"
	"net"

	"github.com/quicway/quicway/internal/control"
)

var (
	// ErrClosed is returned by calls on an [Endpoint] that is closed, and by
	// those that wait while it closes. It wraps net.ErrClosed.
	ErrClosed error = closedError{}

	// ErrPeerID is wrapped by errors about text that is not a PeerID.
	ErrPeerID = errors.New("not a peer ID")

	// ErrPeerMismatch: the other side is not the peer that was asked for,
	// or not one that the offer was meant for.
	ErrPeerMismatch = errors.New("another peer answered")

	// ErrPeerRefused: the other side ended the connection before it was
	// handed to its application.
	ErrPeerRefused = errors.New("the peer refused")

	// ErrPeerGone: the relay says that the peer has left, and nothing comes
	// from it any more. It is the cause that a [Conn] ends with.
	ErrPeerGone = errors.New("the peer is gone")

	// ErrNoDirectPath: no direct path was found, and Config.Policy is
	// DirectOnly.
	ErrNoDirectPath = errors.New("no direct path to the peer")

	// ErrNoPath: neither the direct path nor the relay answers. It is the
	// cause that a [Conn] ends with after its idle timeout.
	ErrNoPath = errors.New("no path to the peer")

	// ErrOffer is wrapped by errors about text that is not an offer.
	ErrOffer = errors.New("not an offer")

	// ErrOfferExpired: nobody took the offer in time, or it came too late. The
	// error says "clock" where one that is wrong may be the cause.
	ErrOfferExpired = errors.New("the offer has expired")

	// ErrOfferUsed: the offer has led to a connection already.
	ErrOfferUsed = errors.New("the offer has been used")

	// ErrRelay is wrapped by errors about text that is not a relay's URL,
	// or a [Relay] that lacks what it needs.
	ErrRelay = errors.New("not a relay")

	// ErrRelayUnreachable: the relay does not answer.
	ErrRelayUnreachable = errors.New("the relay does not answer")

	// ErrRelayNotAllowed: an offer names a relay at an address that
	// [Config.OfferRelays] does not allow.
	ErrRelayNotAllowed = errors.New("the offer's relay is at an address that is not allowed")

	// ErrPeerAbsent: the offer lies in the mailbox, and nobody has taken it: the
	// peer is not there. It comes with why the wait is over.
	ErrPeerAbsent = errors.New("the offer lies in the mailbox untaken: the peer is not there")

	// ErrNotForwarded: the relay answers and the other peer has come to it, but
	// nothing comes from there: the relay, or something before it, does not let
	// the peers' packets through, or the other peer is gone. It comes with why
	// the wait is over.
	ErrNotForwarded = errors.New("the relay answers, but nothing comes from the peer by the relay")

	// ErrRelayMismatch: what answers is not the relay that was asked for.
	ErrRelayMismatch = errors.New("the relay's key is not the expected one")

	// ErrRelayRefused is wrapped by the errors for what the relay denies.
	ErrRelayRefused = errors.New("the relay refused")

	// ErrUnauthorized: the relay does not accept the token. It is an
	// ErrRelayRefused too.
	ErrUnauthorized = errors.New("the relay does not accept the token")

	// ErrIdentityInUse: another endpoint, with the same [Identity], takes the offers
	// that are addressed to it: a copied configuration, or a cloned machine.
	ErrIdentityInUse = errors.New("another endpoint with this identity is at the relay")

	// ErrConfig is wrapped by errors about a [Config] that cannot work.
	ErrConfig = errors.New("invalid configuration")
)

// errClaimed: the endpoint has the offer already.
var errClaimed = fmt.Errorf("%w", ErrOfferUsed)

type closedError struct{}

func (closedError) Error() string { return "endpoint closed" }
func (closedError) Unwrap() error { return net.ErrClosed }

// refusedError is a relay's refusal.
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

// refusedAs says whether err is a relay's refusal with that code.
func refusedAs(err error, code control.Code) bool {
	var refused *refusedError
	return errors.As(err, &refused) && refused.problem.Code == code
}
