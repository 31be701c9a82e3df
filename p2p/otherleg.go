package p2p

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// openPatience is how long registering at another relay may take.
const openPatience = 3 * time.Second

// openedLeg is the result of registering at another relay.
type openedLeg struct {
	leg   *leg
	relay Relay  // as the peer is told
	join  string // what admits the peer, at the dialer
	err   error
}

// openLeg registers a leg of the connection's at another relay. known is the leg that there
// is at the relay, or nil. It blocks.
func (c *Conn) openLeg(r Relay, join string, known *leg) openedLeg {
	e := c.endpoint
	ctx, cancel := context.WithTimeout(c.Context(), openPatience)
	defer cancel()
	c.saveJoined(ctx)
	client, err := e.relays.acquire(r)
	if err != nil {
		return openedLeg{err: err}
	}
	_, _ = client.retried(ctx) // a client that has failed before tries again now
	g := cmp.Or(known, &leg{link: c.link, client: client})
	reply, err := c.registerAt(ctx, g, join, known == nil)
	if known != nil || err != nil {
		e.relays.release(client) // known has it
	}
	if err != nil {
		return openedLeg{err: err}
	}
	return openedLeg{leg: g, relay: e.advertised(client.relay, reply), join: reply.Join}
}

// saveJoined makes sure that the dialer's resume token is from after the peer has joined:
// nobody else can join with the offer's token then.
func (c *Conn) saveJoined(ctx context.Context) {
	carrier := c.link.leg()
	conn := carrier.client.present()
	if conn == nil || c.link.role != control.Dialer || carrier.saysJoined.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, _ = carrier.register(ctx, conn)
}

// registerAt registers a leg at its relay: with the resume token of the relay that carries,
// if that is of the same operator, and otherwise as somebody new. It refuses a relay at which
// the link has another leg already.
func (c *Conn) registerAt(ctx context.Context, g *leg, join string, isNew bool) (*control.Registered, error) {
	client, carrier := g.client, c.link.leg()
	if err := c.link.checkTwin(g, false); err != nil {
		return nil, err
	}
	other := cmp.Or(join, client.relay.Token)
	if client.relay.isOfOperator(carrier.client.relay) {
		g.admitBy(carrier.resume())
	} else if isNew {
		g.admitBy(other)
	}
	reply, err := client.legs.register(ctx, g)
	if errors.Is(err, ErrUnauthorized) && other != "" {
		g.admitBy(other) // the relay has another secret
		reply, err = client.legs.register(ctx, g)
	}
	if err != nil {
		return nil, err
	}
	if err := c.link.checkTwin(g, true); err != nil { // the relay has said who it is
		return nil, err
	}
	return reply, nil
}

// merge replaces a leg that has been registered by another one of the link's at the same
// client, if there is one: the connection may look for a standby and for its peer at the same
// time.
func (f *failover) merge(o *openedLeg) {
	for _, g := range f.link.legs() {
		if o.leg == nil || o.err != nil || g == o.leg || g.client != o.leg.client {
			continue
		}
		g.admitBy(o.leg.resume())
		g.isRegistered.Store(true)
		g.client.legs.add(g)
		f.conn.endpoint.relays.release(g.client) // the other leg's use
		f.former = slices.DeleteFunc(f.former, func(l formerLeg) bool { return l.leg == g })
		o.leg = g
		return
	}
}

// isOfOperator says whether two relays have the same key, and so are of one operator. What
// a relay has given to this host to continue a session, only these relays may see.
func (r Relay) isOfOperator(o Relay) bool { return !r.Pin.IsZero() && r.Pin == o.Pin }
