package p2p

import (
	"sync"
	"time"
)

// sharedConn is a connection that this package has opened or accepted for net.Conns, and
// closes when they do not need it any more.
type sharedConn struct {
	*Conn
	ended func() // called once, when it has been closed for lack of use

	mu    sync.Mutex    // guards the following
	users int           // StreamConns, and calls that open one
	since time.Time     // when users became 0
	over  bool          // nobody may use it any more
	idle  time.Duration // how long it may be without users; 0: for ever
	timer *time.Timer   // runs while there are no users; nil if idle is 0
	asked time.Time     // when the peer was last asked for an answer
}

func newSharedConn(c *Conn, ended func()) *sharedConn {
	return &sharedConn{Conn: c, ended: ended, since: time.Now()}
}

// use adds a user, which calls release in the end. It returns false if the connection has
// ended, or is about to be closed.
func (c *sharedConn) use() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.Context().Err() != nil {
		return false
	}
	c.users++
	if c.timer != nil {
		c.timer.Stop()
	}
	return true
}

func (c *sharedConn) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users--; c.users == 0 {
		c.since = time.Now()
		c.startTimer()
	}
}

// closeAfter has the connection closed when it has had no users for a time.
func (c *sharedConn) closeAfter(idle time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = idle
	if c.users == 0 {
		c.startTimer()
	}
}

// startTimer starts the timer. c.mu is held.
func (c *sharedConn) startTimer() {
	if idle := c.idle; idle > 0 && !c.over && c.Context().Err() == nil {
		c.timer = time.AfterFunc(idle, func() { c.closeIdle(idle) })
	}
}

// closeIdle closes the connection if it has been without users for a time, and returns
// whether it does.
func (c *sharedConn) closeIdle(idle time.Duration) bool {
	c.mu.Lock()
	if c.over || c.users > 0 || time.Since(c.since) < idle {
		c.mu.Unlock()
		return false
	}
	c.over = true
	c.mu.Unlock()
	_ = c.CloseWithError(0, "not in use")
	c.ended()
	return true
}

// idleSince returns since when there are no users; false if there are, or the connection is
// being closed.
func (c *sharedConn) idleSince() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.since, c.users == 0 && !c.over
}
