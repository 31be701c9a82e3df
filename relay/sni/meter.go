package sni

import (
	"net"
	"sync/atomic"
)

// meter counts the bytes of one direction of a connection. The methods of atomic.Uint64 that
// are not here do not tell the splicer.
type meter struct {
	atomic.Uint64
	ended atomic.Bool // the end of the direction was passed on
	conn  *conn       // nil: the connection is never offered to the kernel
	first []byte      // counted bytes that are still to be written
}

// flush writes the bytes that are still to be written.
func (m *meter) flush(dst *net.TCPConn) error {
	first := m.first
	if m.first = nil; len(first) == 0 {
		return nil
	}
	_, err := dst.Write(first)
	return err
}

// Add counts bytes. It offers the connection to the kernel when it has relayed enough.
func (m *meter) Add(n uint64) {
	m.Uint64.Add(n)
	if c := m.conn; c != nil && !c.offered.Load() && c.fromClient.Load()+c.fromUpstream.Load() >= c.server.splicer.minBytes {
		c.server.splicer.offer(c)
	}
}
