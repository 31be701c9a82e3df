package sni

import (
	"context"
	"errors"
	"net"
	"time"
)

// errPeerReset: one of the ends has reset a connection that was in the kernel.
var errPeerReset = errors.New("reset by one of the ends, in the kernel")

// errLeft: the process ends, and the kernel goes on with a connection.
var errLeft = errors.New("left in the kernel")

// errLost: the kernel has lost a connection.
var errLost = errors.New("lost in the kernel")

// takeover is a connection on its way into the kernel, in it, and on its way back.
type takeover struct {
	ctx    context.Context // done when the connection is aborted
	cancel context.CancelFunc
	over   chan struct{} // closed when the kernel has taken the connection, or has not
	pair   kernelPair    // set before; nil if it has not
	back   chan string   // gets the reason for which the policy wants it back
}

// beginTakeover marks a connection as on its way into the kernel. It returns nil if the
// connection is aborted, is in a loop, or is on its way already. The caller calls endTakeover.
func (c *conn) beginTakeover() *takeover {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted != nil || c.takeover != nil || c.ended || c.short != nil {
		return nil
	}
	c.takeover = newTakeover()
	return c.takeover
}

func newTakeover() *takeover {
	t := &takeover{over: make(chan struct{}), back: make(chan string, 1)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// endTakeover says how the takeover went. If the connection was aborted meanwhile, that is
// done now.
func (c *conn) endTakeover(t *takeover, pair kernelPair) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.pair = pair
	close(t.over)
	if pair != nil {
		// The copy loops have nothing to do any more. The sockets may be closed already.
		_ = c.client.SetReadDeadline(longAgo)
		_ = c.upstream.SetReadDeadline(longAgo)
		return
	}
	t.cancel()
	c.takeover = nil
	if c.aborted != nil {
		c.resetLocked()
	}
}

// longAgo is a deadline that ends reads.
var longAgo = time.Unix(1, 0)

// taken waits until a takeover is over, if there is one, and returns it if the kernel has the
// connection. Otherwise it returns nil.
func (c *conn) taken() *takeover {
	c.mu.Lock()
	t := c.takeover
	c.mu.Unlock()
	if t == nil {
		return nil
	}
	<-t.over
	if t.pair == nil {
		return nil
	}
	return t
}

// last returns the takeover if the kernel has the connection. Otherwise no takeover begins
// any more, and it returns nil.
func (c *conn) last() *takeover {
	for {
		c.mu.Lock()
		t := c.takeover
		c.ended = t == nil
		c.mu.Unlock()
		if t == nil {
			return nil
		}
		if <-t.over; t.pair != nil {
			return t
		}
	}
}

// stay waits while the connection is in the kernel. It reports whether it has come back, so
// that the copy loops have to go on.
func (c *conn) stay() bool {
	t := c.last()
	if t == nil {
		return false
	}
	c.enter(t) // the copy loops have ended
	var again pause
	pauses := &c.server.splicer.pauses
	var retry <-chan time.Time
	reason := reasonOther
	for {
		select {
		case <-t.pair.done():
			if t.pair.end() != endBack {
				c.leave(t, nil, nil)
				return false
			}
		case <-t.ctx.Done():
			c.endInKernel(t)
			return false
		case r := <-t.pair.wants():
			reason = r.String()
		case reason = <-t.back:
		case <-retry:
		}
		if c.comeBack(t, reason) {
			return c.why() == nil
		}
		retry = nil
		if reason != reasonPolicy { // the kernel does not ask twice
			retry = time.After(again.next(pauses.minRefused, pauses.maxRefused))
		}
	}
}

// endInKernel resets both ends of a connection in the kernel, unless it is left there.
func (c *conn) endInKernel(t *takeover) {
	if c.why() != errLeft {
		if err := t.pair.abort(); err != nil {
			c.server.log.Warn("a connection in the kernel was not reset", "err", err)
		}
	}
	c.leave(t, nil, nil)
}

// comeBack takes the connection back from the kernel, and reports whether that has worked.
func (c *conn) comeBack(t *takeover, reason string) bool {
	client, upstream, err := t.pair.back(t.ctx)
	if err != nil {
		if t.ctx.Err() == nil {
			c.server.splicer.counters.backFailed.Add(1)
			c.server.log.Debug("a connection stays in the kernel", "client", c.hello.Client, "reason", reason, "err", err)
		}
		return false
	}
	c.server.splicer.counters.back.add(reason)
	c.server.splicer.cameBack(c)
	c.leave(t, client, upstream)
	return true
}

// enter counts a connection as one in the kernel, unless that has been done. The copy loops
// have ended.
func (c *conn) enter(t *takeover) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pair != nil {
		return
	}
	c.server.splicer.counters.inKernel.Add(1)
	c.pair = t.pair
	c.takeovers++
}

// leave counts what the kernel has relayed, and says how the connection has ended there. The
// sockets are those with which it goes on in userspace, or nil.
func (c *conn) leave(t *takeover, client, upstream *net.TCPConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.cancel()
	n := t.pair.traffic()
	c.pair, c.takeover = nil, nil
	c.server.splicer.counters.inKernel.Add(-1)
	c.fromClient.Add(n.fromClient.bytes)
	c.fromUpstream.Add(n.fromUpstream.bytes)
	if client != nil {
		c.client, c.upstream = client, upstream
		c.injected, c.base = 0, bases{c.fromClient.Load(), c.fromUpstream.Load()}
		if c.ended = c.aborted != nil; c.ended {
			c.resetLocked()
		}
		return
	}
	c.ended = true
	if c.aborted != nil {
		return
	}
	switch t.pair.end() {
	case endReset:
		c.aborted = errPeerReset
	case endLost:
		c.aborted = errLost
	}
}

// bases are the numbers of bytes that were relayed before the present sockets were made.
type bases struct{ client, upstream uint64 }

// sockets returns the present sockets. upstream is nil as long as there is none. client is nil
// if another process has accepted it, and the kernel still has the connection.
func (c *conn) sockets() (client, upstream *net.TCPConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.client, c.upstream
}

// relayed returns the numbers of bytes from the client and from the upstream so far.
func (c *conn) relayed() (fromClient, fromUpstream uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pair == nil {
		return c.relayedLocked()
	}
	n := c.pair.traffic()
	return c.fromClient.Load() + n.fromClient.bytes, c.fromUpstream.Load() + n.fromUpstream.bytes
}

// inKernel returns the connection in the kernel, and reports whether it is there.
func (c *conn) inKernel() (pair kernelPair, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pair, c.pair != nil
}
