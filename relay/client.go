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

	mu   sync.Mutex
	seen netip.AddrPort // the address told last
}

type clientKey struct{}

// clientOf returns the control connection that a request came on.
func clientOf(r *http.Request) *client { return r.Context().Value(clientKey{}).(*client) }

// notify queues an event. It never blocks.
func (c *client) notify(e control.Event) {
	select {
	case c.events <- e:
	default:
	}
}

// observed tells the client its address if it has not been told yet.
func (c *client) observed(addr netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == addr {
		return
	}
	c.seen = addr
	c.notify(control.Event{Type: control.EventObserved, Observed: addr})
}

// gate bounds the control connections, and says when there are so many
// unfinished handshakes that strangers should prove their addresses first.
type gate struct {
	max, retryFrom   int64
	total, handshake atomic.Int64
}

// enter is a quic.Transport's ConnContext.
func (g *gate) enter(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
	if g.total.Add(1) > g.max {
		g.total.Add(-1)
		return nil, errTooManyConnections
	}
	g.handshake.Add(1)
	established := sync.OnceFunc(func() { g.handshake.Add(-1) })
	context.AfterFunc(ctx, func() {
		established()
		g.total.Add(-1)
	})
	c := &client{events: make(chan control.Event, eventQueue), established: established}
	return context.WithValue(ctx, clientKey{}, c), nil
}

// crowded asks for a Retry (RFC 9000 §8.1.2).
func (g *gate) crowded() bool { return g.handshake.Load() >= g.retryFrom }
