package p2p

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/quicway/quicway/internal/control"
)

// relayFacts is what this side knows of a relay, by which it tells whether two names or
// addresses lead to one relay.
type relayFacts struct {
	relay    Relay
	at       netip.AddrPort // where it has shown its key, or the zero AddrPort
	name     string         // the address that it has told of itself, or ""
	instance string         // the ID that its process has told, or ""
}

// isTwin says whether two relays are one, as far as this side knows. What a relay says of
// itself counts only if their keys do not tell them apart: otherwise a relay could pass
// itself off as another one, which this side would not use then.
func (f *relayFacts) isTwin(o *relayFacts) bool {
	switch {
	case f.at.IsValid() && f.at == o.at:
		return true
	case f.relay.Pin != o.relay.Pin && !f.relay.Pin.IsZero() && !o.relay.Pin.IsZero():
		return false
	case f.instance != "" && f.instance == o.instance:
		return true
	}
	return f.name != "" && (f.name == o.name || f.name == o.relay.Addr) || o.name != "" && o.name == f.relay.Addr
}

// facts are those of the leg's relay.
func (g *leg) facts() relayFacts {
	f := g.client.facts()
	f.name = g.advertised()
	return f
}

// facts are those of the client's relay, but for its name.
func (c *relayClient) facts() relayFacts {
	f := relayFacts{relay: c.relay, at: c.address()}
	if id := c.instance.Load(); id != nil {
		f.instance = *id
	}
	return f
}

// isTwin says whether two legs are at the same relay.
func (g *leg) isTwin(o *leg) bool {
	if g.client == o.client {
		return true
	}
	a, b := g.facts(), o.facts()
	return a.isTwin(&b)
}

// noteInstance takes note of the ID that the relay's process has told. An old relay has none.
func (c *relayClient) noteInstance(id string) {
	if len(id) > control.MaxName {
		id = ""
	}
	if old := c.instance.Load(); old == nil || *old != id {
		c.instance.Store(&id)
	}
}

// nameOf returns the address that a relay has told of itself, if it may have that, or "".
func (e *Endpoint) nameOf(r Relay, told control.Member) string {
	if named, ok := e.named(r, told); ok {
		return named.Addr
	}
	return ""
}

// twin returns another leg of the link at the same relay, or nil.
func (l *link) twin(g *leg) *leg {
	for _, o := range l.legs() {
		if o != g && o.isTwin(g) {
			return o
		}
	}
	return nil
}

// checkTwin returns an error if a leg is at the same relay as another one of the link's,
// under another name or at another address. If the relay has registered the leg already, it
// has moved the other one, which has to be moved back.
func (l *link) checkTwin(g *leg, registered bool) error {
	t := l.twin(g)
	if t == nil || t.client == g.client {
		return nil
	}
	if registered {
		g.client.legs.forget(g)
		t.client.legs.hasten(t)
	}
	return fmt.Errorf("%w: %s and %s", errTwin, g.client.relay.Addr, t.client.relay.Addr)
}

// errTwin: two names or addresses lead to one relay, which is no standby for itself.
var errTwin = errors.New("the same relay under two names")
