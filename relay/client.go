package relay

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/control"
)

// eventQueue is how many events wait for a client that does not read them.
// Further ones are lost: they only hasten what a client finds out anyway.
const eventQueue = 64

// client is one control connection.
type client struct {
	conn       *quic.Conn
	events     chan control.Event
	subscribed atomic.Bool
	// established is called when the handshake is done, or has failed.
	established func()

	mu    sync.Mutex     // guards the following
	seen  netip.AddrPort // the address told last
	sight uint64         // its number
}

type clientKey struct{}

// clientOf returns the control connection that a request came on.
func clientOf(r *http.Request) *client { return r.Context().Value(clientKey{}).(*client) }

// connected says whether the connection is there. That of a client which has not
// come back after a restart is not.
func (c *client) connected() bool { return c.conn != nil && c.conn.Context().Err() == nil }

// notify queues an event. It never blocks.
func (c *client) notify(e control.Event) {
	select {
	case c.events <- e:
	default:
	}
}

// observe returns the client's address and its number, and tells the client if that
// is news. Addresses are numbered because an answer to a request and an event go by
// streams of their own, so that either may overtake the other.
func (c *client) observe() (addr netip.AddrPort, sight uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := remoteAddr(c.conn); now != c.seen {
		c.seen = now
		c.sight++
		c.notify(control.Event{Type: control.EventObserved, Observed: c.seen, Sight: c.sight})
	}
	return c.seen, c.sight
}

// gate bounds the control connections, in all and from one source, and says
// when there are so many unfinished handshakes that strangers should prove their
// addresses first.
type gate struct {
	max, maxEach, retryFrom int

	mu        sync.Mutex // guards the following
	total     int
	handshake int
	sources   map[netip.Prefix]int
}

// enter is a quic.Transport's ConnContext.
func (g *gate) enter(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	source := sourceOf(addrPort(info.RemoteAddr).Addr())
	if !g.admit(source) {
		return nil, errTooManyConnections
	}
	established := sync.OnceFunc(g.established)
	context.AfterFunc(ctx, func() {
		established()
		g.leave(source)
	})
	c := &client{events: make(chan control.Event, eventQueue), established: established}
	return context.WithValue(ctx, clientKey{}, c), nil
}

func (g *gate) admit(source netip.Prefix) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= g.max || g.sources[source] >= g.maxEach {
		return false
	}
	if g.sources == nil {
		g.sources = make(map[netip.Prefix]int)
	}
	g.sources[source]++
	g.total++
	g.handshake++
	return true
}

func (g *gate) established() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.handshake--
}

func (g *gate) leave(source netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.sources[source]--; g.sources[source] == 0 {
		delete(g.sources, source)
	}
}

// crowded asks for a Retry (RFC 9000 §8.1.2).
func (g *gate) crowded() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.handshake >= g.retryFrom
}

// sourceOf is what one party is taken to have: an address of IPv4, 64 bits of
// IPv6.
func sourceOf(addr netip.Addr) netip.Prefix {
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	prefix, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{} // of no address
	}
	return prefix
}
