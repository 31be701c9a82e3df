package p2p

import (
	"context"
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
// An endpoint has at most eight offers for one peer in mailboxes. Other calls of Dial wait until one
// of these has ended. [Endpoint.DialContext] shares one connection. While a mailbox has no room, or has
// lost the offer, because the relay has been restarted or others needed the room, Dial leaves it again.
//
// With several relays ([Config.Relays]) it uses the first one in the order, and the next one
// if that one cannot be used, or ceases to answer before the peer has answered. Each attempt
// makes and delivers another offer. With more than three relays it leaves the offer in the
// mailboxes of the relay that it dials through and of two that a hash of the peer's ID chooses,
// one after the other until the peer has answered.
//
// With the zero PeerID and a [DialConfig.Deliver], the first one that answers the offer
// is the peer. [Conn.RemoteID] then returns its ID.
//
// Errors wrap ErrConfig if there is neither a peer nor a Deliver, ErrMalformedRelay if
// no relay is configured, ErrOfferExpired, ErrPeerMismatch, ErrPeerRefused,
// ErrNoDirectPath, ErrRelayUnreachable, ErrRelayMismatch, ErrRelayRefused,
// ErrUnauthorized, ErrClosed, ctx's error, or that of Deliver. Together with one of
// them, ErrPeerAbsent says that nobody has taken the offer out of the mailbox, and
// ErrNotForwarded that nothing has come from the peer through the relay.
func (e *Endpoint) Dial(ctx context.Context, peer PeerID, cfg *DialConfig) (*Conn, error) {
	deliver, err := e.delivery(peer, cfg)
	if err != nil {
		return nil, fmt.Errorf("p2p: dial: %w", err)
	}
	e.counters.dialing.Add(1)
	conn, err := e.dialRelays(ctx, peer, deliver)
	if err == nil {
		conn, err = conn.awaitPolicy(ctx)
	}
	e.counters.dialing.Add(-1)
	e.counters.dials.count(err)
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

// delivery returns what brings an offer to the peer; nil: the mailbox.
func (e *Endpoint) delivery(peer PeerID, cfg *DialConfig) (DeliverFunc, error) {
	switch {
	case cfg != nil && cfg.Deliver != nil:
		return cfg.Deliver, nil
	case peer.IsZero():
		return nil, fmt.Errorf("%w: neither a peer nor DialConfig.Deliver is set", ErrConfig)
	}
	return nil, nil
}

// putOfferAt leaves an offer in a relay's mailbox, addressed to a peer.
func (e *Endpoint) putOfferAt(ctx context.Context, r Relay, peer PeerID, offer Offer) error {
	client, err := e.relays.acquire(r)
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
	return conn.putOffer(ctx, peer.String(), r.Token, offer.session, text)
}

// makeOffer makes the offer of a link whose first flight is complete. The token by which
// the peer joins the session is this side's own.
func (e *Endpoint) makeOffer(l *link, expires time.Time) Offer {
	r := l.leg().client.relay
	return Offer{
		session: l.session,
		dialer:  e.ID(),
		relay:   Relay{Addr: r.Addr, Pin: r.Pin},
		join:    control.JoinToken(l.key, l.session),
		secret:  newSecret(),
		expires: expires,
		flight:  l.flight.caught(),
	}
}

// introduce registers the dialer's leg. An offer for the mailbox goes there in the same
// request. introduce returns whether it is there. If not, it gives the offer the relay's
// join token, which every relay knows, and the address that the relay wants peers to know. A mailbox
// that has no room is no error.
func (e *Endpoint) introduce(ctx context.Context, l *link, peer PeerID, offer *Offer, mailbox bool) (left bool, err error) {
	if mailbox {
		text, err := offer.MarshalText()
		if err != nil {
			return false, err
		}
		l.leave(peer, text)
	}
	client := l.leg().client
	reply, err := client.legs.register(ctx, l.leg())
	if err != nil {
		return false, err
	}
	l.admitted.Store(true)
	if p := reply.Problem; p != nil && p.Code != control.CodeElsewhere && p.Code != control.CodeLimit && !e.list.hasSeveral() {
		return false, fmt.Errorf("deliver offer: %w", &refusedError{*p})
	}
	if !reply.Offered {
		offer.relay, offer.join = e.advertised(client.relay, reply), reply.Join
	}
	return reply.Offered, nil
}

// deliver delivers an offer in the background, and sets done when it is delivered. It
// calls abort with the reason if that fails. A peer may answer before the delivery has
// returned, so it goes on after Dial until the offer expires, the endpoint is closed, or
// stop is called.
func (e *Endpoint) deliver(ctx context.Context, deliver DeliverFunc, offer Offer, done *atomic.Bool, abort context.CancelCauseFunc) (stop context.CancelCauseFunc) {
	ctx, cancel := context.WithDeadlineCause(context.WithoutCancel(ctx), offer.expires, ErrOfferExpired)
	ctx, stop = e.bound(ctx)
	context.AfterFunc(ctx, func() { // not when deliver returns: see DeliverFunc
		stop(nil)
		cancel()
	})
	e.tasks.Go(func() {
		if err := deliver(ctx, offer); err == nil {
			done.Store(true)
		} else if ctx.Err() == nil {
			abort(fmt.Errorf("deliver offer: %w", err))
		}
	})
	return stop
}

// dial is dialAt, and follows a refusal that leads to another relay once.
func (e *Endpoint) dial(ctx context.Context, r Relay, expires time.Time, peer PeerID, deliver DeliverFunc) (*Conn, error) {
	conn, err := e.dialAt(ctx, r, r, expires, peer, deliver)
	if to, ok := e.elsewhere(r, err); ok {
		return e.dialAt(ctx, to, r, expires, peer, deliver)
	}
	return conn, err
}

// dialAt opens a link, begins the handshake, delivers the offer with its first flight, and
// waits for the peer. waitsAt is the relay at which the peer waits, if deliver is nil: it may
// have sent the session elsewhere.
func (e *Endpoint) dialAt(ctx context.Context, r, waitsAt Relay, expires time.Time, peer PeerID, deliver DeliverFunc) (_ *Conn, err error) {
	ctx, abort := e.bound(ctx)
	defer abort(nil)

	l, err := e.openLink(ctx, r, control.NewSessionID(), control.Dialer, r.Token)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			e.discard(l)
		}
	}()
	l.flight, l.unoffered = newFirstFlight(), make(chan struct{}, 1)
	l.hellos.Store(newEarlyHellos())
	defer l.hellos.Store(nil)
	handshake := e.startHandshake(ctx, l, peer)
	select {
	case <-handshake.done:
		return nil, handshake.failure(ctx)
	case <-l.flight.done:
	}
	offer := e.makeOffer(l, expires)
	mailbox := deliver == nil
	left, err := e.introduce(ctx, l, peer, &offer, mailbox && r.same(waitsAt))
	if err != nil {
		return nil, err
	}
	if e.list.hasSeveral() {
		e.tasks.Go(func() { l.leg().client.guard(ctx, abort) })
	}
	o := &offering{endpoint: e, link: l, peer: peer, offer: offer, at: waitsAt}
	o.taken.Store(left)
	if mailbox {
		o.meet = e.list.meeting(peer, e.list.order())
		deliver = func(ctx context.Context, _ Offer) error { return o.leave(ctx) }
		e.tasks.Go(func() { o.keep(ctx) })
	}
	if !left || o.meet != nil {
		stop := e.deliver(ctx, deliver, offer, &o.taken, abort)
		defer func() {
			if err != nil {
				stop(err)
			}
		}()
	}
	<-handshake.done
	if handshake.err != nil {
		err := handshake.failure(ctx)
		if mailbox {
			err = o.explain(err)
		}
		return nil, l.explain(err)
	}
	conn, err := e.greet(ctx, l, handshake.conn, &offer)
	return conn, l.explain(err)
}
