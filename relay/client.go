package relay

import (
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/amplify"
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
	// pass is the client's at the gate, and peer its address, once it is
	// established wherever it moves.
	pass *pass
	peer *amplify.Peer

	requests  chan struct{} // holds one token for each request under way
	shown     atomic.Bool   // it has shown a token, or has a leg
	listening atomic.Int32  // requests for offers of its own key
	asked     atomic.Bool   // Authorize has been asked about listening
	over      atomic.Bool

	placing      sync.Mutex   // guards the following
	place        *lobby       // that the connection is in, or nil
	source, site netip.Prefix // of its address, for the lobby
	number       uint64       // in the order of those that came to the lobby

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

// siteOf is what one site is taken to have, of however many parties: an address of
// IPv4, 48 bits of IPv6.
func siteOf(addr netip.Addr) netip.Prefix { return prefixOf(addr, 48) }

// sourceOf is what one party is taken to have: an address of IPv4, 64 bits of
// IPv6.
func sourceOf(addr netip.Addr) netip.Prefix { return prefixOf(addr, 64) }

func prefixOf(addr netip.Addr, bits int) netip.Prefix {
	if addr.Is4() {
		bits = 32
	}
	prefix, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{} // of no address
	}
	return prefix
}
