package p2p

import (
	"errors"

	"github.com/quicway/quicway/internal/control"
)

// named returns the relay that another relay names, and whether this host may use it: it is
// one of its own, or is said to have the same key as the relay that names it. Nobody but the
// relays of one operator can show that key. To which addresses a relay that is not configured
// may lead says [Config.OfferRelays].
func (e *Endpoint) named(from Relay, m control.Member) (Relay, bool) {
	r := Relay{Addr: m.Addr, Pin: from.Pin, Token: from.Token, Zone: m.Zone}
	if m.Pin != "" {
		pin, err := ParsePeerID(m.Pin)
		if err != nil {
			return Relay{}, false
		}
		r.Pin = pin
	}
	if own := e.list.configured(r); e.list.isOwn(own) {
		return own, true
	}
	_, _, err := r.split()
	return r, err == nil && len(r.Addr) <= maxAddr && !from.Pin.IsZero() && r.Pin == from.Pin
}

// heeds says whether this host goes where a relay sends it: if the relay has the key of one of
// this host's own relays, or Config.OfferRelays says which others may be used. Anybody can run
// a relay, make an offer that names it, and have it send this host to any address.
func (e *Endpoint) heeds(from Relay) bool {
	return e.conf.OfferRelays != nil || e.list.vouchesFor(from)
}

// elsewhere returns the relay to which a refusal of a relay's leads, if there is one.
func (e *Endpoint) elsewhere(from Relay, err error) (Relay, bool) {
	var refused *refusedError
	if !errors.As(err, &refused) || refused.problem.Code != control.CodeElsewhere {
		return Relay{}, false
	}
	r, ok := e.named(from, refused.problem.Relay)
	return r, ok && !r.same(from) && (e.heeds(from) || e.list.isOwn(r))
}

// drains takes note that the relay is about to stop, and where it sends its clients.
func (c *relayClient) drains(conn *controlConn, to []control.Member) {
	conn.isDraining.Store(true)
	c.endpoint.list.learn(c.relay, to)
	for _, g := range c.legs.all() {
		g.drains()
	}
}

// draining says whether the relay is about to stop.
func (c *relayClient) draining() bool {
	conn := c.present()
	return conn != nil && conn.isDraining.Load()
}

// state returns the control connection, or why there is none.
func (c *relayClient) state() (*controlConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.control, c.err
}
