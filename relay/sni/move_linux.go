package sni

import (
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// bufferSize is the size of the buffers for small transfers, in bytes.
	bufferSize = 16 << 10
	// spliceAfter is the number of full buffers in a row after which the kernel moves
	// the bytes, by splice(2), and spliceLen the number of bytes that it moves at once.
	// Each splice(2) holds a pipe, of which an unprivileged user has few.
	// offerLen is that number for a connection that has not been offered to the kernel
	// yet, which depends on the bytes that are counted.
	spliceAfter = 4
	spliceLen   = 64 << 20
	offerLen    = 256 << 10
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// move copies from src to dst until src ends, and adds the number of bytes to n. While it
// waits it has no buffer.
func move(dst, src *net.TCPConn, n *meter) error {
	raw, err := src.SyscallConn()
	if err != nil {
		return err
	}
	for full := 0; ; {
		got, err := moveOnce(dst, raw)
		n.Add(uint64(got))
		if err != nil || got == 0 {
			return err
		}
		if full++; got < bufferSize {
			full = 0
		}
		if full == spliceAfter {
			full = 0
			spliced, err := io.CopyN(dst, src, n.chunk())
			n.Add(uint64(spliced))
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
}

// moveOnce waits for bytes, and copies up to bufferSize of them. It returns 0 at the end.
func moveOnce(dst *net.TCPConn, src syscall.RawConn) (n int, err error) {
	var buf *[bufferSize]byte
	var readErr error
	err = src.Read(func(fd uintptr) bool {
		buf = buffers.Get().(*[bufferSize]byte)
		for {
			n, readErr = unix.Read(int(fd), buf[:])
			if readErr != unix.EINTR {
				break
			}
		}
		if readErr == unix.EAGAIN {
			buffers.Put(buf)
			buf = nil
			return false
		}
		return true
	})
	if buf != nil {
		defer buffers.Put(buf)
	}
	switch {
	case err != nil:
		return 0, err
	case readErr != nil:
		return 0, readErr
	case n == 0:
		return 0, nil
	}
	return dst.Write(buf[:n])
}

// chunk returns the number of bytes that one splice(2) may move before they are counted.
func (m *meter) chunk() int64 {
	if m.conn != nil && !m.conn.offered.Load() {
		return offerLen
	}
	return spliceLen
}

// tcpClose is the state TCP_CLOSE.
const tcpClose = 7

// isClosed reports whether a socket is closed on both sides. Without that both have sent a
// FIN, it was reset.
func isClosed(conn *net.TCPConn) bool {
	info, err := tcpInfo(conn)
	return err == nil && info.State == tcpClose
}

// progressOf returns a number that grows with each byte that either connection has received
// or delivered.
func (c *conn) progressOf(client, upstream *net.TCPConn) (sum uint64) {
	for _, conn := range []*net.TCPConn{client, upstream} {
		if info, err := tcpInfo(conn); err == nil {
			sum += info.Bytes_received + info.Bytes_acked
		}
	}
	return sum
}

// relayedLocked returns the numbers of bytes from the client and from the upstream that
// userspace has relayed so far.
func (c *conn) relayedLocked() (fromClient, fromUpstream uint64) {
	fromClient, fromUpstream = c.fromClient.Load(), c.fromUpstream.Load()
	if c.client == nil {
		return fromClient, fromUpstream
	}
	// The bytes of a splice(2) are added when it ends.
	if info, err := tcpInfo(c.client); err == nil {
		fromClient = max(fromClient, c.base.client+info.Bytes_received)
		fromUpstream = max(fromUpstream, c.base.upstream+info.Bytes_acked)
	}
	return fromClient, fromUpstream
}

func tcpInfo(conn *net.TCPConn) (info *unix.TCPInfo, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	ctlErr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if ctlErr != nil {
		return nil, ctlErr
	}
	return info, err
}
