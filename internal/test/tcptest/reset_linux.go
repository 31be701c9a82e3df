package tcptest

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

const tcpClose = 7 // TCP_CLOSE, the state of a socket that has been reset

// socket is a connection that can tell a reset from the end of the stream.
type socket struct {
	*net.TCPConn
	finished atomic.Bool // a FIN has been sent, or will be at once
}

// CloseWrite sends a FIN.
func (s *socket) CloseWrite() error {
	s.finished.Store(true)
	return s.TCPConn.CloseWrite()
}

// wasReset reports whether the connection was reset, given the error of Read.
func (s *socket) wasReset(err error) bool {
	if errors.Is(err, io.EOF) {
		err = s.ended()
	}
	return errors.Is(err, syscall.ECONNRESET)
}

// ended says what an end of the stream is: nil, ECONNRESET, or net.ErrClosed if somebody has closed
// the socket meanwhile. A reset is an error of one call only: if a concurrent Write has returned it,
// Read finds an end of the stream. Then the socket is closed without that both ends have sent a FIN.
func (s *socket) ended() error {
	if s.finished.Load() {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var info *unix.TCPInfo
	ctlErr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	switch {
	case errors.Is(ctlErr, net.ErrClosed):
		return net.ErrClosed
	case ctlErr == nil && err == nil && info.State == tcpClose:
		return syscall.ECONNRESET
	}
	return nil
}

// reset closes a connection with a reset. An error says that it has ended already.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	_ = conn.Close()
}
