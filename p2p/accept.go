package p2p

import (
	"context"
	"errors"
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
	e.counters.offers.count(err)
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
	from, final := o.relay, false
	conn, joined, err := e.answer(ctx, &o)
	if to, ok := e.elsewhere(from, err); ok {
		o.relay = to
		conn, joined, err = e.answer(ctx, &o)
	}
	if !joined && o.instead.Addr != "" && !errors.Is(err, ErrOfferUsed) && ctx.Err() == nil {
		conn, joined, final, err = e.answerInstead(ctx, from, &o)
	}
	if !joined && !final {
		e.used.unclaim(&o)
	}
	return conn, err
}

// answer registers this side's leg, and performs the handshake meanwhile. It returns
// whether the leg was registered: if not, the offer may be tried again.
func (e *Endpoint) answer(ctx context.Context, o *Offer) (_ *Conn, joined bool, err error) {
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	l, err := e.openAnswer(ctx, o)
	if err != nil {
		return nil, false, err
	}
	patience := joinPatience
	if o.instead.Addr != "" {
		patience = 0
	}
	j := e.startJoin(ctx, l, patience, abort)
	conn, err := e.respond(ctx, l, o, j)
	if errors.Is(err, ErrRelayUnreachable) {
		abort(err)
	}
	<-j.done
	if err != nil {
		err = l.explain(err)
		e.discard(l)
	}
	return conn, j.err == nil, err
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

// openAnswer makes the link of an answer to an offer.
func (e *Endpoint) openAnswer(ctx context.Context, o *Offer) (*link, error) {
	id, err := o.initialID()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformedOffer, err)
	}
	l, err := e.openLink(ctx, o.relay, o.session, control.Accepter, o.join)
	if err != nil {
		return nil, err
	}
	if err := l.routeInitial(id); err != nil {
		e.discard(l)
		return nil, err
	}
	return l, nil
}
