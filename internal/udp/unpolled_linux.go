package udp

import (
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unpolled is a socket that Go's poller does not know. A goroutine that waits for it waits in the
// kernel, on a thread of its own. Go's poller would wake a thread, which then looks for work, for
// each packet that arrives and each that has left, also while the goroutine is busy.
type unpolled struct {
	local  net.Addr
	closed atomic.Bool

	using sync.RWMutex // held as a reader by those who use the following
	fd    int
	event int // an eventfd, which is readable from Close on

	full sync.Mutex // held by the only writer that waits in the kernel
}

var _ interface {
	net.PacketConn
	syscall.Conn
	syscall.RawConn
} = (*unpolled)(nil)

// unpoll returns the socket of conn, without Go's poller, and closes conn.
func unpoll(conn *net.UDPConn) (*unpolled, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	u := &unpolled{local: conn.LocalAddr(), fd: -1}
	if u.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	if ctlErr := raw.Control(func(fd uintptr) { u.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); ctlErr != nil {
		err = ctlErr
	}
	if err != nil {
		unix.Close(u.event)
		return nil, fmt.Errorf("duplicate socket: %w", err)
	}
	_ = conn.Close() // the duplicate stays open
	return u, nil
}

// Read calls f, and again when the socket is readable, until f returns true. It returns
// net.ErrClosed when the socket is closed.
func (u *unpolled) Read(f func(fd uintptr) bool) error {
	u.using.RLock()
	defer u.using.RUnlock()
	return u.until(f, unix.POLLIN)
}

// Write is like Read, for a socket that is writable. Thousands of connections of the relay's own
// QUIC may write at the same time, and a thread for each would be too many. So of those that find
// no room one waits for the socket, and the others for that one.
func (u *unpolled) Write(f func(fd uintptr) bool) error {
	u.using.RLock()
	defer u.using.RUnlock()
	if u.closed.Load() {
		return net.ErrClosed
	}
	if f(uintptr(u.fd)) {
		return nil
	}
	u.full.Lock()
	defer u.full.Unlock()
	return u.until(f, unix.POLLOUT)
}

// Control calls f.
func (u *unpolled) Control(f func(fd uintptr)) error {
	u.using.RLock()
	defer u.using.RUnlock()
	return u.until(func(fd uintptr) bool { f(fd); return true }, 0)
}

// until calls f until it returns true, and waits before it calls f again.
func (u *unpolled) until(f func(fd uintptr) bool, events int16) error {
	for !u.closed.Load() {
		if f(uintptr(u.fd)) {
			return nil
		}
		if err := u.wait(events); err != nil {
			return err
		}
	}
	return net.ErrClosed
}

// wait waits until the socket is ready, or closed. After a signal it returns early.
func (u *unpolled) wait(events int16) error {
	fds := [2]unix.PollFd{{Fd: int32(u.fd), Events: events}, {Fd: int32(u.event), Events: unix.POLLIN}}
	if _, err := unix.Ppoll(fds[:], nil, nil); err != nil && err != unix.EINTR {
		return os.NewSyscallError("ppoll", err)
	}
	if fds[0].Revents&unix.POLLERR != 0 {
		u.dropErrors()
	}
	return nil
}

// dropErrors empties the socket's queue of errors, which only a conn has that the caller has set up
// so (IP_RECVERR, SO_TIMESTAMPING). While there is one in it, no wait lasts.
func (u *unpolled) dropErrors() {
	for {
		_, _, err := unix.Recvfrom(u.fd, nil, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil && err != unix.EINTR {
			return
		}
	}
}

// canWait says whether the system call of wait is allowed: a seccomp filter may forbid it.
func canWait() bool {
	_, err := unix.Ppoll(nil, &unix.Timespec{}, nil)
	return err == nil || err == unix.EINTR
}

// Close closes the socket, and waits until nobody uses it.
func (u *unpolled) Close() error {
	if u.closed.Swap(true) {
		return net.ErrClosed
	}
	_, _ = unix.Write(u.event, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	u.using.Lock()
	defer u.using.Unlock()
	_ = unix.Close(u.event)
	return os.NewSyscallError("close", unix.Close(u.fd))
}

// LocalAddr returns the address that the socket is bound to.
func (u *unpolled) LocalAddr() net.Addr { return u.local }

// SyscallConn returns u.
func (u *unpolled) SyscallConn() (syscall.RawConn, error) { return u, nil }

// ReadFrom is not supported.
func (u *unpolled) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, os.ErrInvalid }

// WriteTo is not supported.
func (u *unpolled) WriteTo([]byte, net.Addr) (int, error) { return 0, os.ErrInvalid }

// SetDeadline is not supported.
func (u *unpolled) SetDeadline(time.Time) error { return os.ErrNoDeadline }

// SetReadDeadline is not supported.
func (u *unpolled) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

// SetWriteDeadline is not supported.
func (u *unpolled) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
