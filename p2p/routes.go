package p2p

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/internal/monotime"
	"github.com/quicway/quicway/internal/udp"
)

// followAfter is how long this side's packets must be unanswered, plus the round-trip time,
// before packets that come from a relay that does not carry mean something.
const followAfter = 50 * time.Millisecond

// routes are the relays of a link. They are never changed, only replaced, so that a
// packet costs one atomic load. quic-go sees one address, link.relay, for all of them:
// another relay is neither a migration nor another path for it, and its congestion
// control and round-trip time go on.
type routes struct {
	carrier *leg   // packets go through its relay
	others  []*leg // packets from their relays are the peer's, too
}

// find returns the other leg whose relay has an address, or nil.
func (r *routes) find(a netip.AddrPort) *leg {
	for _, g := range r.others {
		if g.client.address() == a || g.client.wasAt(a) {
			return g
		}
	}
	return nil
}

// leg is the leg through which packets go.
func (l *link) leg() *leg { return l.routes.Load().carrier }

// remote is the present address of the relay through which packets go.
func (l *link) remote() netip.AddrPort { return l.leg().client.address() }

// relayName is the configured address of the relay through which packets go.
func (l *link) relayName() string { return l.leg().client.relay.Addr }

// hasten has the relay asked about the leg at once: see [legs.hasten].
func (l *link) hasten() {
	g := l.leg()
	g.client.legs.hasten(g)
}

// isRelay says whether an address is one of the link's relays: now, before that has moved to
// its present address, or when the link was made.
func (l *link) isRelay(a netip.AddrPort) bool {
	r := l.routes.Load()
	return a == r.carrier.client.address() || r.carrier.client.wasAt(a) || a == l.relay || r.find(a) != nil
}

// legs are all legs of the link. The first one carries.
func (l *link) legs() []*leg {
	r := l.routes.Load()
	return append([]*leg{r.carrier}, r.others...)
}

// addRoute lets packets come from the relay of a leg. Only the owner of the routes, which
// is the pathfinder's goroutine, changes them.
func (l *link) addRoute(g *leg) {
	r := l.routes.Load()
	if r.carrier != g && !slices.Contains(r.others, g) {
		l.routes.Store(&routes{r.carrier, append(slices.Clone(r.others), g)})
	}
}

// removeRoute ends addRoute.
func (l *link) removeRoute(g *leg) {
	r := l.routes.Load()
	l.routes.Store(&routes{r.carrier, slices.DeleteFunc(slices.Clone(r.others), func(o *leg) bool { return o == g })})
}

// carryBy has packets go through the relay of a leg.
func (l *link) carryBy(g *leg) {
	r := l.routes.Load()
	others := slices.DeleteFunc(slices.Clone(r.others), func(o *leg) bool { return o == g })
	l.routes.Store(&routes{g, append(others, r.carrier)})
	l.activity.forgive()
}

// elsewhere remembers that packets come from a relay that does not carry. They may be the
// peer's, or the relay's own.
type elsewhere struct {
	heard atomic.Int64 // time of the last one, of package monotime; 0: none
	from  atomic.Pointer[leg]
	leg   atomic.Pointer[leg] // for the failover, which takes it; nil: nothing has come since
}

// heardElsewhere takes note of a packet that has come through another relay than the one
// that carries. While this side's packets are unanswered, the failover decides whether to
// follow the peer.
func (l *link) heardElsewhere(g *leg) {
	now := time.Now()
	l.elsewhere.from.Store(g)
	l.elsewhere.heard.Store(monotime.Of(now))
	if l.activity.silence(now) < followAfter {
		return
	}
	l.elsewhere.leg.Store(g)
	if owner := l.conn(); owner != nil {
		notify(owner.finder.failover.news)
	}
}

// sendElsewhere sends packets also through another relay, if something has just come from there.
// The caller sends them through the relay that carries, which is silent. quic-go acknowledges the
// peer's packets before the failover follows the peer, and only once: without the acknowledgement
// the peer would wait for its next probe timeout, which has grown while the relay was silent.
func (l *link) sendElsewhere(m udp.Message) {
	g := l.elsewhere.from.Load()
	if g == nil || monotime.Age(l.elsewhere.heard.Load(), time.Now()) > followAfter {
		return
	}
	m.Remote = g.client.address()
	_ = l.carry(&m, &l.size)
}
