package sni

import (
	"bufio"
	"container/list"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/quicway/quicway/quota"
)

// conn is a client's connection, and that to its upstream.
type conn struct {
	server *Server
	client *net.TCPConn
	began  time.Time
	slot   *quota.Slot // nil: there is no quota
	pool   *pool       // of the route that counts the connection; or nil
	to     *upstream   // that counts the connection; or nil
	opened bool        // the upstream has got what the client has sent

	source netip.Prefix  // that counts the connection; or the zero Prefix
	place  *list.Element // among those that wait for the ClientHello; or nil

	// Bytes that have been relayed, those in the kernel's pipes left out.
	fromClient, fromUpstream atomic.Uint64

	mu       sync.Mutex // guards the following
	hello    Hello
	route    string
	upstream *net.TCPConn // nil: there is none yet
	aborted  error        // why the connection was reset; or nil

	idle idleMark // of the sweeper
}

// abort resets both connections, unless that has been done. It may be called at any time.
func (c *conn) abort(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted != nil {
		return
	}
	c.aborted = why
	reset(c.client)
	if c.upstream != nil {
		reset(c.upstream)
	}
}

// reset closes a connection with a reset. An error says that it has ended already.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	_ = conn.Close()
}

// why returns why the connection was aborted, or nil.
func (c *conn) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.aborted
}

// serve relays the connection until it ends.
func (c *conn) serve(ctx context.Context) {
	reader := readers.Get().(*bufio.Reader)
	reader.Reset(c.client)
	err := c.open(ctx, reader)
	reader.Reset(nil)
	readers.Put(reader)
	if err != nil {
		c.refuse(err)
		return
	}
	c.opened = true
	c.server.counters.relayed.Add(1)
	c.relay()
}

// open reads the ClientHello, dials an upstream, and sends it what the client has sent.
func (c *conn) open(ctx context.Context, r *bufio.Reader) error {
	s := c.server
	deadline := c.began.Add(s.conf.HelloTimeout)
	if err := c.client.SetReadDeadline(deadline); err != nil {
		return &refusal{HelloReset, err}
	}
	h, err := c.readHello(r)
	if err != nil {
		return err
	}
	if err := c.client.SetReadDeadline(time.Time{}); err != nil {
		return &refusal{HelloReset, err}
	}
	route, err := c.choose(ctx, h, deadline)
	if err != nil {
		return err
	}
	began := time.Now()
	upstream, to, err := s.dialer.dial(ctx, c.pool, func(e *dialError) {
		s.counters.dialFailures.Add(1)
		s.log.Warn("an upstream has not accepted a connection", "route", route.name(), "upstream", e.address, "err", e.err)
	})
	if err != nil {
		return &refusal{failureOfDial(ctx), err}
	}
	s.counters.upstreamTime.add(time.Since(began))
	c.to = to
	return c.greet(upstream, route, h, r)
}

func failureOfDial(ctx context.Context) Failure {
	if ctx.Err() != nil {
		return ServerClosed
	}
	return UpstreamFailed
}

// readHello reads what the connection begins with, and asks the limits of its source.
func (c *conn) readHello(r *bufio.Reader) (*Hello, error) {
	s := c.server
	h := &Hello{Client: addrPort(c.client.RemoteAddr()), Server: addrPort(c.client.LocalAddr())}
	if s.isBalancer(h.Client.Addr()) {
		if err := readProxy(r, h); err != nil {
			return nil, err
		}
	}
	if err := c.admit(h.Client); err != nil {
		return nil, err
	}
	if err := readHello(r, h); err != nil {
		return nil, err
	}
	s.conns.heard(c)
	c.mu.Lock()
	c.hello = *h
	c.mu.Unlock()
	return h, nil
}

// admit asks the limits of the client's source, and the quota.
func (c *conn) admit(client netip.AddrPort) error {
	s := c.server
	c.mu.Lock()
	c.hello.Client = client
	c.mu.Unlock()
	if why, ok := s.conns.countFor(c, sourceOf(client.Addr())); !ok {
		return &refusal{why, errors.New(client.Addr().String())}
	}
	if s.conf.Quota == nil {
		return nil
	}
	slot, err := s.conf.Quota.Admit(client, true)
	if err != nil {
		return &refusal{QuotaRefused, err}
	}
	c.slot = slot
	slot.OnEnd(func() { c.abort(&refusal{QuotaRefused, errors.New("ended by the quota")}) })
	return nil
}

// choose finds the route, and counts the connection for it.
func (c *conn) choose(ctx context.Context, h *Hello, deadline time.Time) (*Route, error) {
	s := c.server
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	route, err := s.route(ctx, h)
	switch {
	case err != nil:
		return nil, &refusal{RouterRefused, err}
	case route == nil || len(route.Upstreams) == 0:
		return nil, &refusal{NoRoute, errNoRoute}
	}
	c.mu.Lock()
	c.route = route.name()
	c.mu.Unlock()
	c.pool = &route.pool
	if n := c.pool.active.Add(1); route.MaxConnections > 0 && n > int64(route.MaxConnections) {
		return nil, &refusal{RouteFull, errors.New(route.name())}
	}
	return route, nil
}

// greet sends the upstream a PROXY protocol header if the route wants one, and what the
// client has sent.
func (c *conn) greet(upstream *net.TCPConn, route *Route, h *Hello, r *bufio.Reader) error {
	c.mu.Lock()
	aborted := c.aborted
	c.upstream = upstream
	c.mu.Unlock()
	if aborted != nil {
		reset(upstream)
		return &refusal{ServerClosed, aborted}
	}
	sent, _ := r.Peek(r.Buffered())
	first := sent
	if route.SendProxy > 0 {
		header, err := proxyproto.HeaderProxyFromAddrs(byte(route.SendProxy), net.TCPAddrFromAddrPort(h.Client), net.TCPAddrFromAddrPort(h.Server)).Format()
		if err != nil {
			return &refusal{ProxyHeader, err}
		}
		first = append(header, sent...)
	}
	if _, err := upstream.Write(first); err != nil {
		return &refusal{UpstreamFailed, err}
	}
	c.fromClient.Store(uint64(len(sent)))
	return nil
}

// relay copies bytes in both directions until both have ended.
func (c *conn) relay() {
	var other sync.WaitGroup
	other.Go(func() { c.copy(c.client, c.upstream, &c.fromUpstream) })
	c.copy(c.upstream, c.client, &c.fromClient)
	other.Wait()
}

// copy copies one direction. It passes on its end, and has both connections reset if it
// does not end properly.
func (c *conn) copy(dst, src *net.TCPConn, n *atomic.Uint64) {
	err := move(dst, src, n)
	if err == nil {
		err = dst.CloseWrite()
	}
	if err != nil {
		c.abort(err)
	}
}

// finish closes what is left and gives back what counts the connection.
func (c *conn) finish() {
	_ = c.client.Close()
	c.mu.Lock()
	upstream := c.upstream
	c.mu.Unlock()
	if upstream != nil {
		_ = upstream.Close()
	}
	if c.slot != nil {
		c.slot.Release()
	}
	if c.pool != nil {
		c.pool.active.Add(-1)
	}
	if c.to != nil {
		c.to.active.Add(-1)
	}
	c.server.ended(c)
}

// addrPort returns the address of a TCP socket.
func addrPort(addr net.Addr) netip.AddrPort { return plain(addr.(*net.TCPAddr).AddrPort()) }

// plain returns an address that can be compared: IPv4 is not mapped into IPv6, and there
// is no zone.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
