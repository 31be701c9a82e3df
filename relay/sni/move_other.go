//go:build !linux

package sni

import (
	"errors"
	"io"
	"net"
	"sync"
)

// bufferSize is the size of the buffers, in bytes.
const bufferSize = 32 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// move copies from src to dst until src ends, and adds the number of bytes to n.
func move(dst, src *net.TCPConn, n *meter) error {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for {
		got, err := src.Read(buf[:])
		if got > 0 {
			written, err := dst.Write(buf[:got])
			n.Add(uint64(written))
			if err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// isClosed reports whether a socket is closed on both sides. This system does not tell.
func isClosed(*net.TCPConn) bool { return false }

// progressOf returns a number that grows with each byte that is relayed.
func (c *conn) progressOf(_, _ *net.TCPConn) uint64 {
	return c.fromClient.Load() + c.fromUpstream.Load()
}

// relayedLocked returns the numbers of bytes from the client and from the upstream that
// userspace has relayed so far.
func (c *conn) relayedLocked() (fromClient, fromUpstream uint64) {
	return c.fromClient.Load(), c.fromUpstream.Load()
}
