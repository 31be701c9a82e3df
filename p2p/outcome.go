package p2p

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/quic-go/quic-go"
)

// outcomeNames are the keys of [EndpointStats.Dials] and [EndpointStats.Offers], with the errors
// that they stand for. The first error that fits decides. The last name is for all others.
var outcomeNames = [...]struct {
	name string
	errs []error
}{
	{"connected", nil},
	{"closed", []error{ErrClosed}},
	{"peer_not_allowed", []error{errNotAllowed}},
	{"peer_mismatch", []error{ErrPeerMismatch}},
	{"peer_refused", []error{ErrPeerRefused}},
	{"peer_gone", []error{ErrPeerGone}},
	{"peer_absent", []error{ErrPeerAbsent}},
	{"no_direct_path", []error{ErrNoDirectPath}},
	{"not_forwarded", []error{ErrNotForwarded}},
	{"unauthorized", []error{ErrUnauthorized}},
	{"relay_refused", []error{ErrRelayRefused}},
	{"relay_not_allowed", []error{ErrRelayNotAllowed}},
	{"relay_mismatch", []error{ErrRelayMismatch}},
	{"relay_unreachable", []error{ErrRelayUnreachable}},
	{"malformed", []error{ErrMalformedOffer, ErrMalformedRelay}},
	{"offer_used", []error{ErrOfferUsed}},
	{"offer_expired", []error{ErrOfferExpired}},
	{"canceled", []error{context.Canceled, context.DeadlineExceeded}},
	{"other", nil},
}

// outcomes counts how attempts to connect have ended. The zero value is ready for use.
type outcomes [len(outcomeNames)]atomic.Uint64

// count counts an attempt that has ended with err.
func (o *outcomes) count(err error) { o[outcomeOf(err)].Add(1) }

// outcomeOf returns which of outcomeNames an error is.
func outcomeOf(err error) int {
	if err == nil {
		return 0
	}
	for i, o := range outcomeNames {
		for _, e := range o.errs {
			if errors.Is(err, e) {
				return i
			}
		}
	}
	return len(outcomeNames) - 1
}

// all returns the counters by name.
func (o *outcomes) all() map[string]uint64 {
	out := make(map[string]uint64, len(o))
	for i := range o {
		out[outcomeNames[i].name] = o[i].Load()
	}
	return out
}

// ending is how a connection has ended.
type ending uint8

const (
	endClosed      ending = iota // by one side, with code 0
	endApplication               // by one side, with another code
	endPeerGone
	endPeerRefused
	endNoDirectPath
	endNoPath
	endIdle
	endReset
	endTransport
	endOther

	numEndings
)

// endingNames are the keys of [EndpointStats.Ended].
var endingNames = [numEndings]string{
	"closed", "application_error", "peer_gone", "peer_refused", "no_direct_path", "no_path",
	"idle_timeout", "stateless_reset", "transport_error", "other",
}

// endingOf returns the ending that an error of [Conn.Err] stands for.
func endingOf(err error) ending {
	var application *quic.ApplicationError
	var idle *quic.IdleTimeoutError
	var reset *quic.StatelessResetError
	var transport *quic.TransportError
	switch {
	case errors.Is(err, ErrPeerGone):
		return endPeerGone
	case errors.Is(err, ErrPeerRefused):
		return endPeerRefused
	case errors.Is(err, ErrNoDirectPath):
		return endNoDirectPath
	case errors.Is(err, ErrNoPath):
		return endNoPath
	case errors.As(err, &application) && application.ErrorCode == 0:
		return endClosed
	case errors.As(err, &application):
		return endApplication
	case errors.As(err, &idle):
		return endIdle
	case errors.As(err, &reset):
		return endReset
	case errors.As(err, &transport):
		return endTransport
	}
	return endOther
}
