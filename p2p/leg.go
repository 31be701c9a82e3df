package p2p

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// leg is the leg of a link at one relay. All legs of a link have the same key, so that
// they have the same connection IDs.
type leg struct {
	link   *link
	client *relayClient
	number uint64 // by which the peers know the relay: see STANDBY. Used only by the pathfinder.
	// isRegistered says that the relay has the leg, as far as this side knows.
	isRegistered atomic.Bool
	// saysJoined says that token is from after the peer has joined.
	saysJoined atomic.Bool

	mu     sync.Mutex     // guards the following
	token  string         // what admits the leg next time
	ttl    time.Duration  // what the relay has granted
	seen   netip.AddrPort // this host's address, as the relay sees it
	name   string         // the address that the relay has told of itself, or ""
	tunnel bool           // that is the address of a TCP connection
	// leaving is what the next registration leaves in the mailbox.
	leaving *control.LeftOffer
}

// register registers the leg at the relay, or refreshes it.
func (g *leg) register(ctx context.Context, conn *controlConn) (*control.Registered, error) {
	request, token := g.registration()
	if request.Offer != nil && !conn.mayLeave() {
		request.Offer = nil
	}
	old := g.client.endpoint.conf.asOldRelay
	if old != nil {
		old(request, nil)
	}
	joined := g.link.joined.Load()
	reply, err := conn.register(ctx, g.link.session, request, token)
	if err == nil && old != nil {
		old(request, reply)
	}
	if err != nil {
		if errors.Is(err, ErrRelayRefused) {
			g.isRegistered.Store(false)
		}
		return nil, err
	}
	name := g.client.endpoint.nameOf(g.client.relay, reply.Relay)
	g.client.noteInstance(reply.Instance)
	g.mu.Lock()
	g.token, g.leaving = reply.Resume, nil
	g.ttl = time.Duration(reply.TTL) * time.Second
	g.name = name
	g.mu.Unlock()
	g.isRegistered.Store(true)
	g.saysJoined.Store(joined)
	g.observe(conn)
	return reply, nil
}

// registration returns the request that registers or refreshes the leg, and its token.
func (g *leg) registration() (*control.Register, string) {
	l := g.link
	next := l.ids.Next() // before the locks: the generator calls generated with its own lock held
	l.mu.Lock()
	initial := l.initial
	l.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	return &control.Register{Role: l.role, Key: l.key, Next: next, InitialID: initial, Offer: g.leaving}, g.token
}

// resume is the token with which the leg can be registered again, here or at another
// relay with the same secret.
func (g *leg) resume() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.token
}

// admitBy sets the token that admits the leg next time.
func (g *leg) admitBy(token string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.token = token
}

// advertised is the address that the relay has told of itself, if it may have that, or "".
func (g *leg) advertised() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.name
}

// granted is how long the relay keeps the leg without a refresh.
func (g *leg) granted() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ttl
}

// observe takes note of this host's address, as the relay sees it.
func (g *leg) observe(conn *controlConn) {
	g.mu.Lock()
	addr := conn.address() // under the lock, so that the latest is written last
	tunnel := conn.tunnel != nil
	changed := g.seen != addr || g.tunnel != tunnel
	g.seen, g.tunnel = addr, tunnel
	g.mu.Unlock()
	if !tunnel {
		g.client.checkObserved(addr)
	}
	if owner := g.link.conn(); owner != nil && changed && g.carries() {
		owner.observed(addr)
	}
}

// observed is this host's address, as the relay sees it.
func (g *leg) observed() netip.AddrPort {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seen
}

// observedUDP is observed, or the zero AddrPort if the relay does not see UDP.
func (g *leg) observedUDP() netip.AddrPort {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tunnel {
		return netip.AddrPort{}
	}
	return g.seen
}

// carries says whether the link's packets go through the leg's relay.
func (g *leg) carries() bool { return g.link.leg() == g }

// overdue is how long packets through the leg's relay have been unanswered: see
// [activity.overdue].
func (g *leg) overdue(now time.Time) time.Duration {
	if !g.carries() {
		return 0
	}
	return g.link.activity.overdue(now)
}

// relayAnswers takes note of whether the relay answers, and tells the link's connection.
func (g *leg) relayAnswers(yes bool) {
	if yes {
		notify(g.link.unoffered) // the relay may have been restarted
	}
	if !yes {
		g.isRegistered.Store(false)
	}
	owner := g.link.conn()
	if owner == nil {
		return
	}
	if g.carries() {
		owner.relayAnswers(yes)
	}
	notify(owner.finder.failover.news)
}

// peerGone tells the link's connection that the relay reports its peer as gone. A peer
// that is gone from a relay that does not carry the packets may be at the other one.
func (g *leg) peerGone() {
	if owner := g.link.conn(); owner != nil && g.carries() {
		owner.peerGone()
	}
}

// drains tells the link's connection that the relay is about to stop.
func (g *leg) drains() {
	if owner := g.link.conn(); owner != nil {
		notify(owner.finder.failover.news)
	}
}
