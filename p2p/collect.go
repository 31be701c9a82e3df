package p2p

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// Bounds of what waits to be accepted.
const (
	acceptQueue = 32 // connections that nobody has called Accept for yet
	maxHandling = 64 // offers that are being answered at once
)

// mailboxLife is for how long an offer from the mailbox is remembered as used.
const mailboxLife = time.Hour

// Accept takes offers out of the mailbox of the endpoint's relay, which lie
// there under its [Endpoint.ID], answers them, and returns the next connection
// that stands. Offers that lead to none are logged. It returns ErrClosed after
// Close, ctx's error, or why there is no relay to look at; a relay that has
// been there and is away is waited for. It returns ErrIdentityInUse when another
// endpoint with the same identity takes the offers. Calls after that wait, longer
// each time, before this endpoint takes them again.
//
// As with a listening socket, a connection may come that nobody accepts
// afterwards: an offer that is on its way when Accept returns.
func (e *Endpoint) Accept(ctx context.Context) (*Conn, error) {
	conn, err := e.accept(ctx)
	if err != nil {
		return nil, fmt.Errorf("p2p: accept: %w", err)
	}
	return conn, nil
}

func (e *Endpoint) accept(ctx context.Context) (*Conn, error) {
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.tasks.Done()
	ctx, stop := e.bound(ctx)
	defer stop(nil)
	failed := make(chan error, 1)
	e.want(failed)
	defer e.unwant(failed)
	select {
	case c := <-e.accepted:
		return c, nil
	case err := <-failed:
		return nil, err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// want makes sure that offers are collected, and that failed hears why not.
func (e *Endpoint) want(failed chan error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.wanting[failed] = struct{}{}
	if !e.collecting && !e.closed {
		e.collecting = true
		e.tasks.Go(e.collect)
	}
}

func (e *Endpoint) unwant(failed chan error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.wanting, failed)
}

// wanted says whether anybody waits for a connection.
func (e *Endpoint) wanted() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.wanting) > 0
}

// rest ends the collecting, unless somebody waits.
func (e *Endpoint) rest() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.collecting = len(e.wanting) > 0
	return !e.collecting
}

// collect takes offers out of the mailbox and has them answered, as long as
// somebody waits. A request for an offer is not given up with those who wait:
// the relay may have handed it out already.
func (e *Endpoint) collect() {
	for !e.rest() {
		if err := e.collectAt(e.conf.Relay); err != nil {
			e.unwantAll(err)
		}
	}
}

// unwantAll tells those who wait why nothing will come.
func (e *Endpoint) unwantAll(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for failed := range e.wanting {
		failed <- err
	}
	clear(e.wanting)
}

func (e *Endpoint) collectAt(r Relay) error {
	h, err := e.acquire(r)
	if err != nil {
		return err
	}
	defer e.release(h)
	for e.wanted() {
		e.pace.wait(e.ctx)
		asked := time.Now()
		ln, err := h.current(e.ctx)
		if err == nil {
			var text string
			text, err = ln.takeOffer(e.ctx, e.ID().String())
			switch {
			case err != nil:
			case text != "" && e.answer(h.relay, text):
				e.pace.brought(time.Now())
			default:
				e.pace.empty(asked, time.Now())
			}
		}
		switch {
		case e.ctx.Err() != nil:
			return ErrClosed
		case refusedAs(err, control.CodeConflict):
			e.pace.yield(time.Now())
			e.log.Warn("another endpoint with this identity takes its offers", "relay", h.relay.Addr, "again_in", time.Until(e.pace.next))
			return fmt.Errorf("%w: %w", ErrIdentityInUse, err)
		case err == nil:
		case errors.Is(err, ErrRelayRefused) || !h.worked():
			return err
		case ln != nil:
			if err := h.await(e.ctx, ln); err != nil {
				return err
			}
		default:
			sleep(e.ctx, minBackoff)
		}
	}
	return nil
}

// answer answers an offer in the background. The relay it came from is the one
// that it is about, whatever it says: nobody sends us to another's address.
// It returns false if it is no offer.
func (e *Endpoint) answer(r Relay, text string) bool {
	offer, err := ParseOffer(text)
	if err != nil {
		e.log.Warn("offer in mailbox", "err", err)
		return false
	}
	offer.relay = r
	// The relay has kept it no longer than it should, by its own clock. Those of the
	// peers may be anything.
	offer.expires = time.Now().Add(mailboxLife)
	select {
	case e.handling <- struct{}{}:
	case <-e.ctx.Done():
		return false
	}
	e.tasks.Go(func() {
		defer func() { <-e.handling }()
		e.enqueue(offer)
	})
	return true
}

func (e *Endpoint) enqueue(offer Offer) {
	c, err := e.acceptOffer(e.ctx, offer)
	if err == nil {
		c, err = c.settled(e.ctx)
	}
	if err != nil {
		e.log.Warn("offer led to no connection", "dialer", offer.dialer, "err", err)
		return
	}
	select {
	case e.accepted <- c:
	default:
		e.log.Warn("connection refused: nobody accepts", "peer", c.RemoteID())
		_ = c.CloseWithError(CodeHandshake, "nobody accepts")
	}
}
