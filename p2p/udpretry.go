package p2p

import (
	"context"
	"time"
)

// Timing of tunnels.
const (
	// tunnelDelay is how long UDP may take to reach a relay until a tunnel is tried as well.
	tunnelDelay = time.Second
	// A relay that is reached through a tunnel is tried by UDP after firstUDPRetry, then after
	// twice as long each time, up to lastUDPRetry.
	firstUDPRetry = 2 * time.Second
	lastUDPRetry  = 16 * time.Second
	// steadyUDP is how long UDP must have worked for the retries to begin anew.
	steadyUDP = time.Minute
	// tunnelLinger is how long a tunnel still brings packets when UDP works again.
	tunnelLinger = 2 * time.Second
)

// udpRetry is the state of the attempts to reach, by UDP, a relay that is reached through a
// tunnel. Used only by the run goroutine of a relayClient, or by what it waits for.
type udpRetry struct {
	pause  time.Duration // before the next attempt
	worked time.Time     // when an attempt last succeeded
}

// serve keeps the legs registered over a control connection until that dies. If it is in a tunnel,
// serve ends as soon as UDP reaches the relay, and returns the control connection over UDP.
func (c *relayClient) serve(ctx context.Context, conn *controlConn, lost bool) (next *controlConn) {
	if conn.tunnel == nil {
		c.legs.serve(ctx, conn, lost)
		return nil
	}
	defer context.AfterFunc(conn.tunnel.ctx, conn.close)()
	ctx, cancel := context.WithCancel(ctx)
	found := make(chan *controlConn)
	go func() {
		conn := c.awaitUDP(ctx)
		cancel()
		found <- conn
	}()
	c.legs.serve(ctx, conn, lost)
	cancel()
	return <-found
}

// awaitUDP tries to reach the relay by UDP until that succeeds. It returns nil if ctx is done
// before.
func (c *relayClient) awaitUDP(ctx context.Context) *controlConn {
	if time.Since(c.retry.worked) >= steadyUDP {
		c.retry.pause = firstUDPRetry
	}
	var failures failures
	for {
		timer := time.NewTimer(c.retry.pause)
		select {
		case <-ctx.Done():
		case <-c.retryUDP:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
		c.retry.pause = min(2*c.retry.pause, lastUDPRetry)
		began := time.Now()
		conn, err := c.dialBy(ctx, reconnectTimeout, false)
		switch {
		case err == nil:
			c.retry.worked = time.Now()
			return conn
		case c.tried && ctx.Err() == nil && failures.add(began):
			c.endpoint.renewIfSilent(failures.since)
		}
	}
}

// leaveTunnel closes the tunnel of a control connection, if it is in one: at once, or after a
// while if another control connection has taken its place.
func (c *relayClient) leaveTunnel(ctx context.Context, conn *controlConn, replaced bool) {
	if conn.tunnel == nil {
		return
	}
	c.lingering.Go(func() {
		if replaced {
			sleep(ctx, tunnelLinger)
		}
		c.endpoint.mux.closeTunnel(conn.tunnel)
	})
}
