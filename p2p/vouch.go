package p2p

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// How long the answer of a relay is good that was asked for its members, and how long it is
// not asked again if it has not answered.
const (
	vouchedFor = time.Minute
	vouchPause = 5 * time.Second
)

// vouching remembers the members that a relay has named when it was asked for them.
type vouching struct {
	turn    chan struct{} // holds a token while somebody uses the following
	members []control.Member
	err     error
	until   time.Time // when the relay is to be asked again
}

func newVouching() vouching { return vouching{turn: make(chan struct{}, 1)} }

// errNamedRelay: an offer from a mailbox has led to the relay that it names, and to no
// connection. The offer is not tried again, because it may name a host that is no relay.
var errNamedRelay = errors.New("at the relay that the offer names")

// mayFollow says whether an offer from the mailbox of a relay may lead to another one. Anybody
// may leave an offer, and write any address and pin into it. So the relay of the mailbox must
// vouch for the other one, or Config.OfferRelays say which relays may be used. An error means
// that the relay of the mailbox could not be asked.
func (e *Endpoint) mayFollow(ctx context.Context, from, named Relay) (bool, error) {
	switch {
	case named.same(from):
		return false, nil
	case e.conf.OfferRelays != nil || e.list.isOwn(named):
		return true, nil
	}
	client, err := e.relays.acquire(from)
	if err != nil {
		return false, err
	}
	defer e.relays.release(client)
	return client.vouchesFor(ctx, named)
}

// vouchesFor says whether a relay names another one as a member.
func (c *relayClient) vouchesFor(ctx context.Context, r Relay) (bool, error) {
	members, err := c.members(ctx)
	switch {
	case errors.Is(err, ErrRelayUnreachable) || err != nil && ctx.Err() != nil:
		return false, err
	case err != nil:
		c.endpoint.log.Debug("the relay does not name its members", "relay", c.relay.Addr, "err", err)
		return false, nil
	}
	return slices.ContainsFunc(members, func(m control.Member) bool {
		named, ok := c.endpoint.named(c.relay, m)
		return ok && named.same(r)
	}), nil
}

// members returns the members of the relay. It asks for them seldom. It does not remember an
// error when ctx is done, which says nothing of the relay.
func (c *relayClient) members(ctx context.Context) ([]control.Member, error) {
	caller := ctx
	ctx, cancel := context.WithTimeoutCause(ctx, patience, ErrRelayUnreachable)
	defer cancel()
	v := &c.vouching
	select {
	case v.turn <- struct{}{}:
		defer func() { <-v.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if time.Now().Before(v.until) {
		return v.members, v.err
	}
	conn, err := c.current(ctx)
	if err == nil {
		v.members, err = conn.members(ctx)
	}
	if err != nil && caller.Err() != nil {
		return nil, err
	}
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	pause := vouchedFor
	if errors.Is(err, ErrRelayUnreachable) {
		pause = vouchPause
	}
	v.err, v.until = err, time.Now().Add(pause)
	return v.members, err
}

// answerInstead answers an offer from the mailbox of a relay at the relay that the offer
// names, if it may lead there. Otherwise it tries the relay of the offer once more, with more
// patience. final says that the offer must not be tried again.
func (e *Endpoint) answerInstead(ctx context.Context, from Relay, o *Offer) (conn *Conn, joined, final bool, err error) {
	to := o.instead
	o.instead = Relay{}
	final, err = e.mayFollow(ctx, from, to)
	if err != nil {
		return nil, false, false, err
	}
	if final {
		o.relay = to
	}
	conn, joined, err = e.answer(ctx, o)
	if err != nil && final {
		err = fmt.Errorf("%w: %w", errNamedRelay, err)
	}
	return conn, joined, final, err
}
