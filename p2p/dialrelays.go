package p2p

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// mailboxRelays is the number of relays at which an endpoint with several waits for offers,
// and tries to leave one.
const mailboxRelays = 3

// Timing of a dial while the relay is watched.
const (
	guardEvery    = time.Second
	guardPatience = time.Second
)

// errRelayDied ends an attempt to dial: the relay does not answer any more.
var errRelayDied = fmt.Errorf("%w any more", ErrRelayUnreachable)

// dialRelays dials through the first relay, and through the next one if that one cannot be
// used, or dies before the peer has answered.
func (e *Endpoint) dialRelays(ctx context.Context, peer PeerID, deliver DeliverFunc) (*Conn, error) {
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.tasks.Done()
	expires := time.Now().Add(e.conf.OfferTTL)
	ctx, cancel := context.WithDeadlineCause(ctx, expires, ErrOfferExpired)
	defer cancel()
	ctx, stop := e.bound(ctx)
	defer stop(nil)
	if deliver == nil {
		end, err := e.turns.wait(ctx, peer)
		if err != nil {
			return nil, err
		}
		defer end()
	}
	tried := make(map[relayKey]bool)
	var errs []error
	for {
		r, err := e.list.best(ctx, tried)
		if err != nil && len(errs) > 0 && ctx.Err() == nil {
			return nil, errors.Join(errs...)
		}
		if err != nil {
			return nil, err
		}
		conn, err := e.dial(ctx, r, expires, peer, deliver)
		if err == nil || ctx.Err() != nil || !e.list.hasSeveral() || !isRelayFault(err) {
			return conn, err
		}
		e.log.Info("dial through another relay", "relay", r.Addr, "err", err)
		e.list.refuse(r, err)
		tried[r.key()] = true
		errs = append(errs, err)
	}
}

// isRelayFault says whether another relay may do what this one did not.
func isRelayFault(err error) bool {
	return errors.Is(err, ErrRelayUnreachable) || errors.Is(err, ErrRelayMismatch) || errors.Is(err, ErrMalformedRelay) ||
		refusedAs(err, control.CodeShutdown) || refusedAs(err, control.CodeLimit) || refusedAs(err, control.CodeUnauthorized) ||
		refusedAs(err, control.CodeElsewhere)
}

// guard ends an attempt to dial when the relay does not answer any more, and another one does.
// Otherwise the offer stays good, because this host may have lost its network. guard ends with
// ctx.
func (c *relayClient) guard(ctx context.Context, abort context.CancelCauseFunc) {
	var since time.Time // since when the relay does not answer
	for ctx.Err() == nil {
		now := time.Now()
		switch {
		case c.present() != nil && c.unanswered(now) < guardPatience:
			since = time.Time{}
			c.ask(now, guardEvery)
		case since.IsZero():
			since = now
			fallthrough
		default:
			if c.endpoint.list.anotherAnswers(c, since, now) {
				abort(errRelayDied)
				return
			}
		}
		sleep(ctx, guardEvery/4)
	}
}

// anotherAnswers asks the other relays to which there are control connections, and says
// whether one has answered since a time.
func (s *relayList) anotherAnswers(than *relayClient, since, now time.Time) bool {
	for _, c := range s.endpoint.relays.all() {
		if c == than {
			continue
		}
		if c.ask(now, askAgain); c.answeredSince(since) {
			return true
		}
	}
	return false
}

// putOffer leaves an offer in the mailbox of the relay that this endpoint dials through, or
// else of the first one of its relays that takes it.
func (e *Endpoint) putOffer(ctx context.Context, first Relay, peer PeerID, offer Offer) error {
	err := e.putOfferFor(ctx, first, peer, offer)
	if err == nil || !e.list.hasSeveral() {
		return err
	}
	errs := []error{err}
	for i, s := range e.list.order() {
		if i == mailboxRelays || ctx.Err() != nil {
			break
		}
		if s.Err != nil || s.Relay.same(first) {
			continue
		}
		err := e.putOfferAt(ctx, s.Relay, peer, offer)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// putOfferFor leaves an offer at a relay, or at the one to which that one sends.
func (e *Endpoint) putOfferFor(ctx context.Context, r Relay, peer PeerID, offer Offer) error {
	err := e.putOfferAt(ctx, r, peer, offer)
	if to, ok := e.elsewhere(r, err); ok {
		err = e.putOfferAt(ctx, to, peer, offer)
	}
	return err
}

// advertised is the relay that a peer is told, as the relay itself wants: one behind a load
// balancer names an address of its own.
func (e *Endpoint) advertised(r Relay, reply *control.Registered) Relay {
	if m := reply.Relay; m.Addr != "" {
		if named, ok := e.named(r, m); ok {
			r = named
		}
	}
	return Relay{Addr: r.Addr, Pin: r.Pin}
}
