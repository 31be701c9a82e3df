package sni

import (
	"bufio"
	"bytes"
	"container/list"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/quicway/quicway/quota"
)

// conn is a client's connection, and that to its upstream.
type conn struct {
	server   *Server
	from     netip.AddrPort // the client's socket
	began    time.Time
	slot     *quota.Slot    // nil: there is no quota
	pool     *pool          // of the route that counts the connection; or nil
	to       *upstream      // that counts the connection; or nil
	admitted bool           // the limits have been asked
	opened   bool           // the upstream has got what the client has sent
	offered  atomic.Bool    // to the splicer
	adopted  netip.AddrPort // the upstream, if another process has accepted the connection

	source netip.Prefix  // that counts the connection; or the zero Prefix
	place  *list.Element // among those that wait for the ClientHello; or nil

	// Bytes that have been relayed, those in the kernel left out.
	fromClient, fromUpstream meter

	mu        sync.Mutex   // guards the following
	short     *short       // nil: goroutines serve the connection
	client    *net.TCPConn // nil: it is in a loop, or another process has accepted it
	hello     Hello
	route     string
	policy    Policy         // of the route; or nil
	upstream  *net.TCPConn   // nil: there is none yet, or it is in a loop
	reached   netip.AddrPort // the upstream; or the zero AddrPort
	aborted   error          // why the connection was reset; or nil
	injected  uint64         // bytes that the upstream got before those of the client, less those that only the relay got
	base      bases          // of the present sockets
	takeover  *takeover      // nil: there is none
	pair      kernelPair     // nil: the kernel does not relay the connection
	ended     bool           // no takeover may begin
	takeovers int            // that have succeeded

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
	switch {
	case c.short != nil:
		c.short.postAbort()
	case c.takeover != nil:
		c.takeover.cancel() // whoever waits for it resets both
	default:
		c.resetLocked()
	}
}

// setAborted says why the connection is reset, by who does it, unless it is aborted already.
func (c *conn) setAborted(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted == nil {
		c.aborted = why
	}
}

// part ends the work of a server that closes: it leaves a connection to a kernel that is
// pinned, and aborts any other.
func (c *conn) part() {
	why := error(&refusal{ServerClosed, net.ErrClosed})
	if _, ok := c.inKernel(); ok && c.server.splicer.kernel.pinned() {
		why = errLeft
	}
	c.abort(why)
}

func (c *conn) resetLocked() {
	if c.client != nil {
		reset(c.client)
	}
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

// serve relays the connection until it ends. open gets it an upstream. The first bytes of the
// client may have been read.
func (c *conn) serve(first []byte, open func(r *bufio.Reader) error) {
	reader := readers.Get().(*bufio.Reader)
	reader.Reset(c.client)
	if len(first) > 0 {
		reader.Reset(io.MultiReader(bytes.NewReader(first), c.client))
		_, _ = reader.Peek(len(first)) // there is room
	}
	err := open(reader)
	reader.Reset(nil)
	readers.Put(reader)
	if err != nil {
		c.refuse(err)
		return
	}
	c.relay()
}

// open reads the ClientHello, dials an upstream, and sends it what the client has sent.
func (c *conn) open(ctx context.Context, r *bufio.Reader) error {
	if err := c.client.SetReadDeadline(c.helloDeadline()); err != nil {
		return &refusal{HelloReset, err}
	}
	h, err := c.readHello(r)
	if err != nil {
		return err
	}
	if err := c.client.SetReadDeadline(time.Time{}); err != nil {
		return &refusal{HelloReset, err}
	}
	return c.direct(ctx, h, r)
}

// helloDeadline is the time at which the ClientHello has to be complete, and a Router to answer.
func (c *conn) helloDeadline() time.Time { return c.began.Add(c.server.conf.HelloTimeout) }

// direct finds the route of the ClientHello, dials an upstream, and sends it what the client has
// sent.
func (c *conn) direct(ctx context.Context, h *Hello, r *bufio.Reader) error {
	route, err := c.choose(ctx, h)
	if err != nil {
		return err
	}
	return c.connect(ctx, route, h, r, c.pool.tries())
}

// connect dials one of the upstreams that are left to try, and sends it what the client has sent.
func (c *conn) connect(ctx context.Context, route *Route, h *Hello, r *bufio.Reader, t *tries) error {
	upstream, to, err := c.server.dialer.dial(ctx, t, c.reportDial)
	if err != nil {
		return &refusal{failureOfDial(ctx), err}
	}
	c.server.counters.upstreamTime.add(time.Since(t.began))
	c.to = to
	return c.greet(upstream, route, h, r)
}

// reportDial counts and logs that an upstream has failed.
func (c *conn) reportDial(e *dialError) {
	c.server.counters.dialFailures.Add(1)
	c.server.log.Warn("an upstream has not accepted a connection", "route", c.route, "upstream", e.address, "err", e.err)
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
	h := &Hello{Client: c.from, Server: addrPort(c.client.LocalAddr())}
	if s.isBalancer(h.Client.Addr()) {
		if err := c.readProxy(r, h); err != nil {
			return nil, err
		}
	}
	if err := c.admit(h.Client); err != nil {
		return nil, err
	}
	if err := readHello(r, h); err != nil {
		return nil, err
	}
	c.heard(h)
	return h, nil
}

// heard says that the ClientHello is complete.
func (c *conn) heard(h *Hello) {
	c.server.conns.heard(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hello = *h
}

// readProxy reads a balancer's PROXY protocol header, which the upstream does not get.
func (c *conn) readProxy(r *bufio.Reader, h *Hello) error {
	counted := &countingReader{Reader: c.client}
	r.Reset(counted)
	if err := readProxy(r, h); err != nil {
		return err
	}
	length := counted.n - uint64(r.Buffered())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.injected -= length
	c.base.client -= length
	return nil
}

// admit asks the limits of the client's source, and the quota, once.
func (c *conn) admit(client netip.AddrPort) error {
	s := c.server
	if c.admitted {
		return nil
	}
	c.admitted = true
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
	c.hold(slot)
	return nil
}

// hold takes a slot of the quota, which may end the connection.
func (c *conn) hold(slot *quota.Slot) {
	c.slot = slot
	slot.OnEnd(func() { c.abort(&refusal{QuotaRefused, errors.New("ended by the quota")}) })
}

// choose finds the route, and counts the connection for it.
func (c *conn) choose(ctx context.Context, h *Hello) (*Route, error) {
	route, err := c.server.route(ctx, h, c.helloDeadline())
	switch {
	case err != nil:
		return nil, &refusal{RouterRefused, err}
	case route == nil || len(route.Upstreams) == 0:
		return nil, &refusal{NoRoute, errNoRoute}
	}
	c.mu.Lock()
	c.route, c.policy = route.name(), route.Policy
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
	first, err := c.withHeader(route, h, sent)
	if err != nil {
		return err
	}
	if _, err := upstream.Write(first); err != nil {
		return &refusal{UpstreamFailed, err}
	}
	c.greeted(addrPort(upstream.RemoteAddr()), len(sent))
	return nil
}

// withHeader returns a PROXY protocol header, if the route wants one, and what the client has
// sent.
func (c *conn) withHeader(route *Route, h *Hello, sent []byte) ([]byte, error) {
	if route.SendProxy == 0 {
		return sent, nil
	}
	header, err := proxyproto.HeaderProxyFromAddrs(byte(route.SendProxy), net.TCPAddrFromAddrPort(h.Client), net.TCPAddrFromAddrPort(h.Server)).Format()
	if err != nil {
		return nil, &refusal{ProxyHeader, err}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.injected += uint64(len(header))
	return append(header, sent...), nil
}

// greeted says that an upstream gets what the client has sent, n bytes.
func (c *conn) greeted(upstream netip.AddrPort, n int) {
	c.fromClient.Store(uint64(n))
	c.mu.Lock()
	c.reached = upstream
	c.mu.Unlock()
	c.opened = true
	c.server.counters.relayed.Add(1)
}

// promoted has goroutines serve a connection that was in a loop.
func (c *conn) promoted(client, upstream *net.TCPConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.short, c.client, c.upstream = nil, client, upstream
	if c.aborted != nil {
		c.resetLocked()
	}
}

// leftLoop says that a connection has ended in a loop.
func (c *conn) leftLoop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.short, c.ended = nil, true
}

// relay relays until both directions have ended, in userspace or in the kernel.
func (c *conn) relay() {
	for here := true; here; here = c.stay() {
		c.copyBoth()
	}
}

// copyBoth copies both directions until both have ended, or the kernel has taken over.
func (c *conn) copyBoth() {
	client, upstream := c.sockets()
	other := make(chan struct{})
	c.server.running.Go(func() {
		c.copy(client, upstream, &c.fromUpstream, &c.fromClient)
		close(other)
	})
	c.copy(upstream, client, &c.fromClient, &c.fromUpstream)
	<-other
}

// copy copies one direction. It passes on its end, unless that was done before the kernel
// refused the connection, and has both connections reset if it does not end properly. A reset
// is an error of one call only: if the other direction's Write has got it, src seems to end.
func (c *conn) copy(dst, src *net.TCPConn, n, back *meter) {
	err := n.flush(dst)
	if err == nil {
		err = move(dst, src, n)
	}
	if err == nil && !back.ended.Load() && isClosed(src) {
		err = syscall.ECONNRESET
	}
	if err == nil && !n.ended.Swap(true) {
		err = c.passEnd(dst)
	}
	if err != nil && c.taken() == nil {
		c.abort(err)
	}
}

// passEnd passes on the end of the other side, unless the connections are being reset: the one that
// was reset seems to end.
func (c *conn) passEnd(dst *net.TCPConn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted != nil {
		return c.aborted
	}
	return dst.CloseWrite()
}

// finish closes what is left and gives back what counts the connection.
func (c *conn) finish() {
	client, upstream := c.sockets()
	if c.why() == errLeft {
		client, upstream = nil, nil // they hold the addresses
	}
	if client != nil {
		_ = client.Close()
	}
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
