package p2p

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/quicway/quicway/internal/control"
)

const (
	// answerTimeout is how long an accepter's handshake may take. The dialer is waiting.
	answerTimeout = time.Minute
	// maxOfferLife is how far in the future the expiry of an offer may be, which its
	// maker chooses.
	maxOfferLife = 24 * time.Hour
	// clockSkew is by how much the clocks of two peers may differ.
	clockSkew = 5 * time.Minute
	// joinPatience is how long an accepter waits until the dialer has registered the
	// session again at a relay that has been restarted.
	joinPatience = 5 * time.Second
)

// AcceptOffer answers an offer that the peer has delivered by some other means than the
// mailbox, and returns the connection. It uses the relay that the offer names. Errors
// wrap ErrMalformedOffer, ErrOfferExpired, ErrOfferUsed, ErrPeerMismatch,
// ErrPeerRefused, ErrPeerGone, ErrNoDirectPath, ErrRelayUnreachable, ErrRelayNotAllowed
// ([Config.OfferRelays]), ErrRelayMismatch, ErrRelayRefused, ErrNotForwarded, ErrClosed
// or ctx's error.
func (e *Endpoint) AcceptOffer(ctx context.Context, offer Offer) (*Conn, error) {
	conn, err := e.acceptOffer(ctx, offer)
	if err == nil {
		conn, err = conn.awaitPolicy(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("p2p: accept offer: %w", err)
	}
	return conn, nil
}

// AcceptOffer is [Endpoint.AcceptOffer] on a new endpoint over conn. Both are closed when
// the connection ends, or if AcceptOffer returns an error.
func AcceptOffer(ctx context.Context, conn net.PacketConn, offer Offer, cfg *Config) (*Conn, error) {
	e, err := NewEndpoint(cfg, conn)
	if err != nil {
		return nil, err
	}
	c, err := e.AcceptOffer(ctx, offer)
	return soleConn(e, c, err)
}

func (e *Endpoint) acceptOffer(ctx context.Context, o Offer) (_ *Conn, err error) {
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.tasks.Done()
	if len(o.flight) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrMalformedOffer)
	}
	if err := o.checkExpiry(time.Now()); err != nil {
		return nil, err
	}
	if err := e.checkPeer(o.dialer, o.dialer); err != nil {
		return nil, err
	}
	if err := e.used.claim(&o); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, ErrOfferExpired)
	defer cancel()
	ctx, stop := e.bound(ctx)
	defer stop(nil)
	l, err := e.join(ctx, &o)
	if err != nil {
		e.used.unclaim(&o)
		return nil, err
	}
	defer func() {
		if err != nil {
			e.discard(l)
		}
	}()
	conn, err := e.respond(ctx, l, &o)
	return conn, l.explain(err)
}

// checkExpiry checks an offer by this host's clock, with a margin, because the dialer's
// clock may differ. The relay checks the join token by its own clock.
func (o *Offer) checkExpiry(now time.Time) error {
	switch left := o.expires.Sub(now); {
	case left <= -clockSkew:
		return fmt.Errorf("%w %v ago by this host's clock", ErrOfferExpired, -left.Round(time.Second))
	case left > maxOfferLife+clockSkew:
		return fmt.Errorf("%w: it expires in %v by this host's clock, want at most a day", ErrMalformedOffer, left.Round(time.Minute))
	}
	return nil
}

// join registers this side's leg of the offer's session.
func (e *Endpoint) join(ctx context.Context, o *Offer) (*link, error) {
	id, err := o.initialID()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformedOffer, err)
	}
	until, pause := time.Now().Add(joinPatience), minBackoff
	for {
		l, _, err := e.openLink(ctx, o.relay, o.session, control.Accepter, o.join, &id)
		switch {
		case err == nil:
			return l, nil
		case refusedAs(err, control.CodeUnauthorized):
			return nil, fmt.Errorf("%w: %w", ErrOfferExpired, err)
		case refusedAs(err, control.CodeConflict), refusedAs(err, control.CodeForbidden):
			return nil, fmt.Errorf("%w: %w", ErrOfferUsed, err)
		case !refusedAs(err, control.CodeNotFound):
			return nil, err
		case time.Now().After(until):
			return nil, fmt.Errorf("%w: it has left the relay", ErrPeerGone)
		}
		sleep(ctx, pause)
		pause *= 2
	}
}
