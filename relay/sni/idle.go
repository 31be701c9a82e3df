package sni

import (
	"context"
	"time"
)

// idleMark is what the sweeper remembers of a connection.
type idleMark struct {
	progress uint64
	since    time.Time
}

// sweep resets connections without new bytes, until ctx is done.
func (s *Server) sweep(ctx context.Context) {
	if s.conf.IdleTimeout < 0 {
		return
	}
	ticker := time.NewTicker(max(s.conf.IdleTimeout/4, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for _, c := range s.conns.all() {
				if c.isIdle(now, s.conf.IdleTimeout) {
					c.abort(errIdle)
				}
			}
		}
	}
}

// isIdle reports whether a relayed connection has had no new bytes for a time. Only the
// sweeper calls it.
func (c *conn) isIdle(now time.Time, timeout time.Duration) bool {
	p, ok := c.progress()
	if !ok {
		return false // it has the time limits of the ClientHello and of dialing
	}
	if p != c.idle.progress || c.idle.since.IsZero() {
		c.idle = idleMark{p, now}
		return false
	}
	return now.Sub(c.idle.since) >= timeout
}

// progress returns a number that grows with each byte of a relayed connection. It reports
// false before the connection has an upstream.
func (c *conn) progress() (uint64, bool) {
	c.mu.Lock()
	client, upstream, pair, short := c.client, c.upstream, c.pair, c.short != nil && c.reached.IsValid()
	c.mu.Unlock()
	switch {
	case pair != nil:
		n := pair.traffic()
		return n.fromClient.bytes + n.fromUpstream.bytes, true
	case short:
		return c.fromClient.Load() + c.fromUpstream.Load(), true
	case upstream == nil:
		return 0, false
	}
	return c.progressOf(client, upstream), true
}
