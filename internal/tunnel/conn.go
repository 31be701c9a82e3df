package tunnel

import (
	"net"
	"sync"
)

// Conn is the TCP connection of a tunnel, below TLS. TLS writes record by record. Between
// Hold and Release a Conn keeps the records, and then writes them with one system call. Its
// methods may be called concurrently.
type Conn struct {
	net.Conn

	mu     sync.Mutex // guards the following
	held   bool
	kept   []byte
	failed error // of Release
}

// keptSize bounds what a Conn keeps, in bytes. Further records are written at once, with
// those before them.
const keptSize = batchSize + batchSize/writeSize*recordOverhead

// recordOverhead is more than TLS 1.3 adds to a record (RFC 8446 §5.2).
const recordOverhead = 256

// Write implements [net.Conn].
func (c *Conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held && len(c.kept)+len(b) <= keptSize {
		c.kept = append(c.kept, b...)
		return len(b), nil
	}
	if err := c.flushLocked(); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// Hold keeps what is written from now on.
func (c *Conn) Hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = true
}

// Release writes what has been kept.
func (c *Conn) Release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = false
	return c.flushLocked()
}

func (c *Conn) flushLocked() error {
	if len(c.kept) == 0 {
		return c.failed
	}
	_, err := c.Conn.Write(c.kept)
	c.kept = c.kept[:0]
	if err != nil {
		c.failed = err // a part may be missing
	}
	return c.failed
}

// forget gives the memory back.
func (c *Conn) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.kept) == 0 {
		c.kept = nil
	}
}
