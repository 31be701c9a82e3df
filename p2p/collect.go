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
	acceptQueue   = 32 // connections that nobody has called Accept for yet
	maxHandling   = 64 // offers that are being answered at once
	maxEachSender = 8  // those of one sender, as far as the relay can tell senders apart
)

// showAgain is after how long the relay shows an offer again that has been neither
// acknowledged nor joined.
const showAgain = 10 * time.Second

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
		ln, err := h.current(e.ctx)
		if err == nil {
			err = e.collectOn(h, ln)
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

// collectOn takes an offer on a connection with the relay, and has it answered.
func (e *Endpoint) collectOn(h *home, ln *line) error {
	asked := time.Now()
	t, err := ln.takeOffer(e.ctx, e.ID().String(), e.conf.Relay.Token)
	if err != nil {
		return err
	}
	if t == nil {
		e.pace.empty(asked, time.Now())
		return nil
	}
	e.pace.brought(time.Now()) // useless ones as well, which do not delay others
	e.answer(h.relay, t)
	return nil
}

// answer answers an offer in the background. The relay it came from is the one
// that it is about, whatever it says: nobody sends us to another's address. If as
// many are being answered as may be, the offer stays in the mailbox, and is shown
// again.
func (e *Endpoint) answer(r Relay, t *taken) {
	offer, err := ParseOffer(t.text)
	if err != nil {
		e.log.Warn("offer in mailbox", "err", err)
		e.tasks.Go(func() { e.acknowledge(t) })
		return
	}
	offer.relay = r
	// The relay has kept it no longer than it should, by its own clock. Those of the
	// peers may be anything.
	offer.expires = time.Now().Add(mailboxLife)
	if !e.startAnswer(t.sender) {
		return
	}
	e.tasks.Go(func() {
		defer e.endAnswer(t.sender)
		if final(e.enqueue(offer)) {
			e.acknowledge(t)
		}
	})
}

// final says whether there is no use in showing an offer again that led to err.
// With no error it has been joined, and the relay knows.
func final(err error) bool {
	return err != nil && !errors.Is(err, errClaimed) && !errors.Is(err, ErrRelayUnreachable) && !errors.Is(err, ErrClosed)
}

func (e *Endpoint) acknowledge(t *taken) {
	if t.number == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(e.ctx, patience)
	defer cancel()
	if err := t.line.acknowledge(ctx, e.ID().String(), t.number); err != nil {
		e.log.Debug("acknowledge offer", "err", err)
	}
}

// startAnswer makes an offer one that is being answered, if there is room for it:
// nobody's offers take the place of all others'.
func (e *Endpoint) startAnswer(sender string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if sender != "" && e.senders[sender] >= maxEachSender {
		return false
	}
	select {
	case e.handling <- struct{}{}:
		e.senders[sender]++
		return true
	default:
		return false
	}
}

func (e *Endpoint) endAnswer(sender string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	<-e.handling
	if e.senders[sender]--; e.senders[sender] == 0 {
		delete(e.senders, sender)
	}
}

// enqueue answers an offer, and keeps the connection for whoever accepts.
func (e *Endpoint) enqueue(offer Offer) error {
	c, err := e.acceptOffer(e.ctx, offer)
	if err == nil {
		c, err = c.awaitPolicy(e.ctx)
	}
	if err != nil {
		if !errors.Is(err, errClaimed) { // it was shown again, and is being answered
			e.log.Warn("offer led to no connection", "dialer", offer.dialer, "err", err)
		}
		return err
	}
	select {
	case e.accepted <- c:
	default:
		e.log.Warn("connection refused: nobody accepts", "peer", c.RemoteID())
		_ = c.CloseWithError(CodeHandshake, "nobody accepts")
	}
	return nil
}
