package relay

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/amplify"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/tunnel"
	"github.com/quicway/quicway/internal/udp"
)

// client is one control connection. A client without conn stands for one that has not
// come back yet after a restart of the server, or has gone.
type client struct {
	conn      *quic.Conn
	errands   errands
	events    events
	admission *admission    // the connection's place at the gate
	peer      *amplify.Peer // the connection's address for the amplification limit
	tunnels   *tunnels
	tunnel    *clientTunnel // the one in which the connection was made; nil: none
	instance  string        // the ID of the server

	requests chan struct{} // holds one token for each open request

	// authenticated: the client has shown a valid token, or has a leg.
	authenticated atomic.Bool
	listening     atomic.Int32 // open requests for offers to the client's own key
	asked         atomic.Bool  // Authorize has been asked about the client's listening
	over          atomic.Bool

	lobbies      *lobbies
	lobbyMu      sync.Mutex   // guards the following
	lobby        *lobby       // the one that the connection is in; nil: none
	source, site netip.Prefix // of its address, when it came to the lobby
	number       uint64       // counts the connections that have come to the lobby
	holds        bool         // the client holds its tunnel

	mu   sync.Mutex     // guards the following
	seen netip.AddrPort // the last address in an event to the client
	seq  uint64         // its number
}

// newClient makes the client of a connection whose handshake begins.
func newClient(lobbies *lobbies, a *admission, peer *amplify.Peer) *client {
	c := &client{requests: newRequests(), lobbies: lobbies, admission: a, peer: peer}
	c.events.writing = errand{of: &c.errands, do: c.events.write}
	return c
}

type clientKey struct{}

// clientOf returns the client that has made a request.
func clientOf(r *http.Request) *client { return r.Context().Value(clientKey{}).(*client) }

// connected says whether the connection is alive.
func (c *client) connected() bool { return c.conn != nil && c.conn.Context().Err() == nil }

// notify queues an event. It never blocks.
func (c *client) notify(e control.Event) {
	if c.conn != nil {
		c.events.add(e)
	}
}

// observe returns the client's address and the number of that address, and notifies the
// client if the address has changed. Addresses are numbered because the answer to a
// request and an event go over streams of their own, so either may arrive first.
func (c *client) observe() (addr netip.AddrPort, seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.remote(); now != c.seen {
		c.seen = now
		c.seq++
		c.notify(control.Event{Type: control.EventObserved, Observed: c.seen, ObservedSeq: c.seq, Instance: c.instance})
	}
	return c.seen, c.seq
}

// close closes the connection.
func (c *client) close(why string) {
	_ = c.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), why)
}

// closeExcess closes the connection because there are too many.
func (c *client) closeExcess() {
	_ = c.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad), errTooManyConnections.Error())
}

// newRequests makes the channel of requests with room for an unauthenticated client's.
func newRequests() chan struct{} {
	requests := make(chan struct{}, maxRequests)
	for range maxRequests - unauthenticatedRequests {
		requests <- struct{}{}
	}
	return requests
}

// beginRequest waits until the client may make another request. It returns false if the
// connection has ended.
func (c *client) beginRequest() bool {
	select {
	case c.requests <- struct{}{}:
		return true
	case <-c.conn.Context().Done():
		return false
	}
}

func (c *client) endRequest() { <-c.requests }

// authenticate notes that the client has shown a valid token or has a leg.
func (c *client) authenticate() {
	if c.authenticated.CompareAndSwap(false, true) {
		c.updateLobby()
		for range maxRequests - unauthenticatedRequests {
			<-c.requests
		}
	}
}

// listen notes that the client waits for offers to its own key, until it calls done.
func (c *client) listen() (done func()) {
	c.listening.Add(1)
	c.updateLobby()
	return func() {
		c.listening.Add(-1)
		c.updateLobby()
	}
}

// updateLobby moves the client to the lobby that fits its state, and closes the
// connection that has to leave that lobby for it.
func (c *client) updateLobby() {
	if evicted := c.changeLobby(); evicted != nil {
		evicted.closeExcess()
	}
}

func (c *client) changeLobby() (evicted *client) {
	c.lobbyMu.Lock()
	defer c.lobbyMu.Unlock()
	to := c.lobbies.of(c)
	c.holdTunnelLocked(to != c.lobbies.unauthenticated && !c.over.Load())
	if to == c.lobby {
		return nil
	}
	c.lobby.leave(c)
	c.lobby = to
	return to.enter(c, remoteAddr(c.conn).Addr())
}

// holdTunnelLocked keeps the client's tunnel open, or no longer does so.
func (c *client) holdTunnelLocked(hold bool) {
	if c.tunnel == nil || c.holds == hold {
		return
	}
	c.holds = hold
	if hold {
		c.tunnels.hold(c.tunnel)
	} else {
		c.tunnels.release(c.tunnel)
	}
}

// closeUnauthenticated closes the connection when it has been unauthenticated for too
// long, unless it waits for offers. The caller calls stop when the connection has ended.
func (c *client) closeUnauthenticated() (stop func()) {
	ctx, cancel := context.WithCancel(c.conn.Context())
	var check func()
	var timer *time.Timer
	var mu sync.Mutex // guards timer
	check = func() {
		switch {
		case ctx.Err() != nil || c.authenticated.Load():
		case c.listening.Load() == 0:
			c.close("not authenticated in time")
		default:
			mu.Lock()
			defer mu.Unlock()
			timer.Reset(unauthenticatedTimeout)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(unauthenticatedTimeout, check)
	return func() {
		cancel()
		mu.Lock()
		defer mu.Unlock()
		timer.Stop()
	}
}

// remoteAddr returns the client address that quic-go has validated last: a server
// follows a client only after a PATH_RESPONSE from the new address (RFC 9000 §9.3).
func remoteAddr(conn *quic.Conn) netip.AddrPort { return udp.AddrPort(conn.RemoteAddr()) }

// remote returns the client's address for limits, logs and peers. It is the one that
// remoteAddr returns, unless the connection is in a tunnel.
func (c *client) remote() netip.AddrPort {
	if c.conn == nil {
		return netip.AddrPort{}
	}
	return c.tunnels.clientOf(remoteAddr(c.conn))
}

// localAddr returns the relay's address that the client uses, or the zero Addr if it is
// not known: then quic-go returns the first socket's address, which may be of the other
// IP version.
func localAddr(conn *quic.Conn) netip.Addr {
	addr := udp.AddrPort(conn.LocalAddr()).Addr()
	if addr.IsUnspecified() || addr.Is4() != remoteAddr(conn).Addr().Is4() {
		return netip.Addr{}
	}
	return addr
}

// siteOf returns the prefix that one site is assumed to have: an IPv4 address, or 48
// bits of IPv6. The address of a tunnel stands for its client's.
func siteOf(addr netip.Addr) netip.Prefix { return prefixOf(addr, 48) }

// sourceOf returns the prefix that one party is assumed to have: an IPv4 address, or 64
// bits of IPv6.
func sourceOf(addr netip.Addr) netip.Prefix { return prefixOf(addr, 64) }

func prefixOf(addr netip.Addr, bits int) netip.Prefix {
	addr = tunnel.Source(addr)
	if addr.Is4() {
		bits = 32
	}
	prefix, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{} // addr is the zero Addr
	}
	return prefix
}
