package p2p

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// Dial connects to a peer through the endpoint's relay. It makes an offer, delivers it as
// cfg says, and waits until the peer has answered, ctx is done, or the offer has expired
// ([Config.OfferTTL]). cfg may be nil.
//
// With the zero PeerID and a [DialConfig.Deliver], the first one that answers the offer
// is the peer. [Conn.RemoteID] then returns its ID.
//
// Errors wrap ErrConfig if there is neither a peer nor a Deliver, ErrMalformedRelay if
// [Config.Relay] is not set, ErrOfferExpired, ErrPeerMismatch, ErrPeerRefused,
// ErrNoDirectPath, ErrRelayUnreachable, ErrRelayMismatch, ErrRelayRefused,
// ErrUnauthorized, ErrClosed, ctx's error, or that of Deliver. Together with one of
// them, ErrPeerAbsent says that nobody has taken the offer out of the mailbox, and
// ErrNotForwarded that nothing has come from the peer through the relay.
func (e *Endpoint) Dial(ctx context.Context, peer PeerID, cfg *DialConfig) (*Conn, error) {
	deliver, err := e.delivery(peer, cfg)
	if err != nil {
		return nil, fmt.Errorf("p2p: dial: %w", err)
	}
	conn, err := e.dial(ctx, peer, deliver, cfg == nil || cfg.Deliver == nil)
	if err == nil {
		conn, err = conn.awaitPolicy(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("p2p: dial: %w", err)
	}
	return conn, nil
}

// Dial is [Endpoint.Dial] on a new endpoint over conn. Both are closed when the
// connection ends, or if Dial returns an error.
func Dial(ctx context.Context, conn net.PacketConn, peer PeerID, cfg *Config, dial *DialConfig) (*Conn, error) {
	e, err := NewEndpoint(cfg, conn)
	if err != nil {
		return nil, err
	}
	c, err := e.Dial(ctx, peer, dial)
	return soleConn(e, c, err)
}

// delivery returns what brings an offer to the peer.
func (e *Endpoint) delivery(peer PeerID, cfg *DialConfig) (DeliverFunc, error) {
	switch {
	case cfg != nil && cfg.Deliver != nil:
		return cfg.Deliver, nil
	case peer.IsZero():
		return nil, fmt.Errorf("%w: neither a peer nor DialConfig.Deliver is set", ErrConfig)
	}
	return func(ctx context.Context, offer Offer) error { return e.putOffer(ctx, peer, offer) }, nil
}

// putOffer leaves an offer in the relay's mailbox, addressed to a peer.
func (e *Endpoint) putOffer(ctx context.Context, peer PeerID, offer Offer) error {
	client, err := e.relays.acquire(e.conf.Relay)
	if err != nil {
		return err
	}
	defer e.relays.release(client)
	conn, err := client.current(ctx)
	if err != nil {
		return err
	}
	text, err := offer.MarshalText()
	if err != nil {
		return err
	}
	return conn.putOffer(ctx, peer.String(), e.conf.Relay.Token, offer.session, text)
}

// makeOffer makes the offer of a link whose first flight is complete. join is the token by which
// the peer joins the session.
func (e *Endpoint) makeOffer(l *link, join string, expires time.Time) Offer {
	return Offer{
		session: l.session,
		dialer:  e.ID(),
		relay:   Relay{Addr: e.conf.Relay.Addr, Pin: e.conf.Relay.Pin},
		join:    join,
		secret:  newSecret(),
		expires: expires,
		flight:  l.flight.caught(),
	}
}

// dial opens a link, begins the handshake, delivers the offer with its first flight, and waits for
// the peer.
func (e *Endpoint) dial(ctx context.Context, peer PeerID, deliver DeliverFunc, mailbox bool) (_ *Conn, err error) {
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.tasks.Done()
	expires := time.Now().Add(e.conf.OfferTTL)
	ctx, cancel := context.WithDeadlineCause(ctx, expires, ErrOfferExpired)
	defer cancel()
	ctx, abort := e.bound(ctx)
	defer abort(nil)

	l, reply, err := e.openLink(ctx, e.conf.Relay, control.NewSessionID(), control.Dialer, e.conf.Relay.Token, nil)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			e.discard(l)
		}
	}()
	l.flight = newFirstFlight()
	handshake := e.startHandshake(ctx, l, peer)
	select {
	case <-handshake.done:
		return nil, handshake.failure(ctx)
	case <-l.flight.done:
	}
	offer := e.makeOffer(l, reply.Join, expires)
	var delivered atomic.Bool
	e.tasks.Go(func() {
		if err := deliver(ctx, offer); err == nil {
			delivered.Store(true)
		} else if ctx.Err() == nil {
			abort(fmt.Errorf("deliver offer: %w", err))
		}
	})
	<-handshake.done
	if handshake.err != nil {
		err := handshake.failure(ctx)
		if mailbox && delivered.Load() && !l.joined.Load() && !errors.Is(err, ErrClosed) {
			err = fmt.Errorf("%w: %w", ErrPeerAbsent, err)
		}
		return nil, l.explain(err)
	}
	conn, err := e.greet(ctx, l, handshake.conn, &offer)
	return conn, l.explain(err)
}
