package sni

import (
	"net"
	"time"
)

// candidate returns what a policy decides by, and remembers in w what was counted. Only the
// splicer's goroutine calls it.
func (c *conn) candidate(w *watch, now time.Time) *Candidate {
	out := &Candidate{Connection: c.snapshot(), Age: now.Sub(c.began)}
	c.mu.Lock()
	client, upstream, pair := c.client, c.upstream, c.pair
	c.mu.Unlock()
	var seen sample
	switch {
	case pair != nil:
		n := pair.traffic()
		seen = sample{n.fromClient.sent + n.fromUpstream.sent, n.fromClient.again + n.fromUpstream.again}
	case client == nil || upstream == nil: // another process has accepted it, and it has just ended
		seen = w.seen
	default:
		seen, w.rtts = measure(client, upstream)
	}
	out.InKernel = pair != nil
	out.ClientRTT, out.UpstreamRTT = w.rtts[0], w.rtts[1]
	if out.InKernel != w.inKernel {
		w.inKernel, w.seen = out.InKernel, sample{} // other numbers, which begin at 0
	}
	out.Retransmitted = seen.since(w.seen)
	w.seen = seen
	return out
}

// since returns the share that was sent again since an earlier sample.
func (s sample) since(before sample) float64 {
	sent, again := s.sent-before.sent, s.again-before.again
	if s.sent < before.sent || s.again < before.again { // of other sockets
		sent, again = s.sent, s.again
	}
	if again == 0 {
		return 0
	}
	return min(float64(again)/float64(max(sent, again)), 1)
}

// forTakeover returns what the kernel needs to know.
func (c *conn) forTakeover() (client, upstream *net.TCPConn, injected uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.client, c.upstream, c.injected
}

// askBack asks for the way back, unless that has been done.
func (c *conn) askBack(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.takeover == nil {
		return
	}
	select {
	case c.takeover.back <- reason:
	default:
	}
}
