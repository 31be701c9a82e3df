//go:build !linux

package sni

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// bufferSize is the size of the buffers, in bytes.
const bufferSize = 32 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// move copies from src to dst until src ends, and adds the number of bytes to n.
func move(dst, src *net.TCPConn, n *atomic.Uint64) error {
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

// progress returns a number that grows with each byte that is relayed.
func (c *conn) progress(*net.TCPConn) uint64 { return c.fromClient.Load() + c.fromUpstream.Load() }

// relayed returns the numbers of bytes from the client and from the upstream so far.
func (c *conn) relayed() (fromClient, fromUpstream uint64) {
	return c.fromClient.Load(), c.fromUpstream.Load()
}
