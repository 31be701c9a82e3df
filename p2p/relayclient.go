package p2p

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/tunnel"
	"github.com/quicway/quicway/internal/udp"
)

// Timing of the control connection.
const (
	// A control connection is made anew after minBackoff, then after twice as long
	// each time, up to maxBackoff.
	minBackoff = 200 * time.Millisecond
	maxBackoff = 5 * time.Second
	// connectTimeout bounds one attempt to connect.
	connectTimeout = 5 * time.Second
	// steadyAfter is how long a control connection must last to be made anew without
	// a pause.
	steadyAfter = 10 * time.Second
)

// relayClient keeps a control connection to one relay up, and the legs registered that
// the endpoint has there.
type relayClient struct {
	endpoint   *Endpoint
	relay      Relay
	at         atomic.Pointer[netip.AddrPort] // the relay's address, once it has answered
	before     atomic.Pointer[netip.AddrPort] // the one before that
	instance   atomic.Pointer[string]         // the ID that the relay's process has told, or nil
	conn       udp.Conn
	transport  *quic.Transport
	activity   activity    // of the control connections
	snatLogged atomic.Bool // the log says that the relay does not see who sends
	legs       legs
	asks       asks
	vouching   vouching
	hurry      chan struct{}  // holds a token when there should be no pause before the next attempt
	retryUDP   chan struct{}  // holds a token when UDP should be tried at once
	lingering  sync.WaitGroup // tunnels that are about to be closed
	stop       context.CancelFunc
	stopped    chan struct{}

	// Used only by the run goroutine.
	known []netip.AddrPort // the relay's addresses at the last lookup
	tried bool             // the last attempt to connect has tried an address
	retry udpRetry

	mu      sync.Mutex    // guards the following
	control *controlConn  // the present one, or nil
	worked  bool          // there has been one
	err     error         // why there is none
	changed chan struct{} // closed and replaced when control or err changes
	// sendErrors holds the addresses that the system sends nothing to, and why.
	sendErrors map[netip.AddrPort]error
}

// newRelayClient starts to connect to a relay.
func newRelayClient(e *Endpoint, r Relay) (*relayClient, error) {
	c := &relayClient{
		endpoint:   e,
		relay:      r,
		hurry:      make(chan struct{}, 1),
		stopped:    make(chan struct{}),
		retryUDP:   make(chan struct{}, 1),
		changed:    make(chan struct{}),
		sendErrors: make(map[netip.AddrPort]error),
		vouching:   newVouching(),
	}
	c.legs = newLegs(c)
	conn, err := udp.NewVirtual(&udp.VirtualConfig{Socket: e.mux.all()[0], Send: c.send})
	if err != nil {
		return nil, err
	}
	c.conn = conn
	c.transport = &quic.Transport{Conn: conn, ConnectionIDGenerator: cid.NewGenerator(cid.NewKey(), cid.Relay, nil)}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	go c.run(ctx)
	return c, nil
}

// receive takes packets of the control connection.
func (c *relayClient) receive(m *udp.Message) {
	c.activity.received()
	c.conn.Deliver(m)
}

func (c *relayClient) send(m *udp.Message) error {
	c.activity.sent(m.Count())
	err := c.endpoint.mux.push(m)
	if err == nil || udp.IsMessageTooLong(err) {
		return err
	}
	if tunnel.IsAddress(m.Remote.Addr()) {
		return nil // a tunnel that has ended; its address is never used again
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sendErrors) < maxRelayAddrs {
		c.sendErrors[m.Remote] = err
	}
	return nil // quic-go ends a connection at any error
}

// address is the relay's address, or the zero AddrPort before the relay has answered
// for the first time.
func (c *relayClient) address() netip.AddrPort {
	if at := c.at.Load(); at != nil {
		return *at
	}
	return netip.AddrPort{}
}

// wasAt says whether an address is the relay's before the present one.
func (c *relayClient) wasAt(a netip.AddrPort) bool {
	before := c.before.Load()
	return before != nil && *before == a
}

// moved takes note of the address at which the relay has answered.
func (c *relayClient) moved(to netip.AddrPort) {
	if old := c.address(); old.IsValid() && old != to {
		c.endpoint.mux.removeControl(old, c)
		c.before.Store(&old)
		c.endpoint.log.Info("relay is at another address", "relay", c.relay.Addr, "from", old, "to", to, "tunnel", tunnel.IsAddress(to.Addr()))
	}
	c.at.Store(&to)
}

// run keeps a control connection up until ctx is done.
func (c *relayClient) run(ctx context.Context) {
	defer close(c.stopped)
	defer c.lingering.Wait()
	backoff, lost := minBackoff, false
	var failures failures
	var next *controlConn // has taken the place of the present one; nil: dial
	for ctx.Err() == nil {
		began := time.Now()
		control, err := next, error(nil)
		if control == nil {
			control, err = c.dial(ctx, failures.timeout(lost))
		}
		c.publish(control, err)
		if err == nil {
			failures.clear()
			began = time.Now()
			next = c.serve(ctx, control, lost)
			control.close()
			c.leaveTunnel(ctx, control, next != nil)
			if next != nil {
				lost = false
				continue
			}
			c.publish(nil, nil)
			c.legs.relayAnswers(false)
			lost = true
			if time.Since(began) >= steadyAfter {
				backoff = minBackoff
				continue
			}
		} else {
			c.endpoint.log.Warn("relay unreachable", "relay", c.relay.Addr, "err", err)
			if c.tried && ctx.Err() == nil && failures.add(began) {
				c.endpoint.renewIfSilent(failures.since)
			}
		}
		c.pause(ctx, backoff)
		backoff = min(2*backoff, maxBackoff)
	}
	if next != nil {
		next.close()
	}
}

// pause waits before the next attempt to connect, unless somebody needs the relay.
func (c *relayClient) pause(ctx context.Context, backoff time.Duration) {
	timer := time.NewTimer(backoff)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-c.hurry:
		sleep(ctx, min(backoff, minBackoff))
	}
}

// retried is current, but waits for another attempt if the last one has failed.
func (c *relayClient) retried(ctx context.Context) (*controlConn, error) {
	c.mu.Lock()
	failed, changed := c.control == nil && c.err != nil, c.changed
	c.mu.Unlock()
	if failed {
		notify(c.hurry)
		if err := c.await(ctx, changed); err != nil {
			return nil, err
		}
	}
	return c.current(ctx)
}

// dialAddr connects to one address of the relay.
func (c *relayClient) dialAddr(ctx context.Context, addr netip.AddrPort, timeout time.Duration) (*controlConn, error) {
	c.mu.Lock()
	delete(c.sendErrors, addr)
	c.mu.Unlock()
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return dialControl(within, c, addr)
}

// mayReach returns ErrRelayNotAllowed if an address of the relay may not be sent
// anything. Any address of a configured relay may. The address of a relay that an offer
// names is checked as one that a peer names, so that the maker of an offer cannot have
// this host connect to others within its network.
func (c *relayClient) mayReach(a netip.AddrPort) error {
	conf := c.endpoint.conf
	switch {
	case c.endpoint.list.has(c.relay.Addr):
		return nil
	case conf.OfferRelays != nil && conf.OfferRelays(a), conf.OfferRelays == nil && c.endpoint.mayReach(a):
		return nil
	}
	return fmt.Errorf("%w: %s", ErrRelayNotAllowed, c.place(a))
}

// mayReach says whether an address that an unauthenticated sender names may be sent
// something.
func (e *Endpoint) mayReach(a netip.AddrPort) bool {
	if !isUnicast(a) {
		return false
	}
	return privateRangeOf(a.Addr()) < 0 || mayProbe(a, e.hostAddrs())
}

// publish makes a control connection the present one, or says why there is none.
func (c *relayClient) publish(control *controlConn, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.control, c.err = control, err
	c.worked = c.worked || control != nil
	close(c.changed)
	c.changed = make(chan struct{})
}

// hasWorked says whether there has ever been a control connection.
func (c *relayClient) hasWorked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.worked
}

// present returns the control connection, or nil if there is none.
func (c *relayClient) present() *controlConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.control
}

// current returns the control connection. If there is none it waits for one, and
// returns an error as soon as connecting has failed.
func (c *relayClient) current(ctx context.Context) (*controlConn, error) {
	for {
		c.mu.Lock()
		control, err, changed := c.control, c.err, c.changed
		c.mu.Unlock()
		switch {
		case control != nil:
			return control, nil
		case err != nil:
			return nil, err
		}
		if err := c.await(ctx, changed); err != nil {
			return nil, err
		}
	}
}

// replaced closes a control connection that has failed, and waits until it is not the
// present one any more.
func (c *relayClient) replaced(ctx context.Context, failed *controlConn) error {
	for {
		c.mu.Lock()
		same, changed := c.control == failed, c.changed
		c.mu.Unlock()
		if !same {
			return nil
		}
		failed.close()
		if err := c.await(ctx, changed); err != nil {
			return err
		}
	}
}

// await waits until changed is closed, ctx is done, or the client is closed.
func (c *relayClient) await(ctx context.Context, changed <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.stopped:
		return ErrClosed
	case <-changed:
		return nil
	}
}

// handleEvent acts on an event of the relay's.
func (c *relayClient) handleEvent(conn *controlConn, e control.Event) {
	switch e.Type {
	case control.EventObserved:
		c.noteInstance(e.Instance)
		for _, l := range c.legs.all() {
			l.observe(conn)
		}
	case control.EventJoined:
		if l := c.legs.find(e.Session); l != nil {
			l.link.joined.Store(true)
			// The resume token does not say yet that the session is joined: without
			// a new one the join token would be good again after a restart of the
			// relay.
			c.legs.hasten(l)
		}
	case control.EventGone:
		if l := c.legs.find(e.Session); l != nil {
			l.peerGone()
		}
	case control.EventEvicted:
		if l := c.legs.find(e.Session); l != nil {
			notify(l.link.unoffered)
		}
	case control.EventShutdown:
		c.endpoint.log.Warn("relay is about to stop", "relay", c.relay.Addr)
		c.drains(conn, e.Relays)
	}
}

// close closes the control connection, and waits for the goroutines of the client.
func (c *relayClient) close() error {
	c.stop()
	<-c.stopped
	err := c.transport.Close()
	c.conn.Close()
	c.endpoint.mux.removeControl(c.address(), c)
	return err
}

// sleep waits for d or until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
