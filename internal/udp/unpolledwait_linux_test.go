package udp

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// pending returns what poll(2) says of a socket, after a wait of so many milliseconds at most.
func pending(t *testing.T, fd, timeout int) int16 {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, timeout); err != nil {
		t.Fatal(err)
	}
	return fds[0].Revents
}

// TestUnpolledErrorQueue checks that errors in a queue that nobody reads end one wait, not all.
func TestUnpolledErrorQueue(t *testing.T) {
	gone := listen(t, "udp", "127.0.0.1:0", nil)
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	s := listenUnpolled(t)
	u := s.conn.(*unpolled)
	if err := unix.SetsockoptInt(u.fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(&Message{Data: []byte{1}, Remote: gone.LocalAddr()}); err != nil {
		t.Fatal(err)
	}
	if pending(t, u.fd, 10_000)&unix.POLLERR == 0 {
		t.Fatal("there is no error")
	}
	if err := u.wait(unix.POLLIN); err != nil {
		t.Error(err)
	}
	if _, err := unix.GetsockoptInt(u.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil { // as a read does
		t.Fatal(err)
	}
	if got := pending(t, u.fd, 0); got != 0 {
		t.Errorf("the next wait would end at once: events %#x", got)
	}
}

// TestUnpolledForbidden checks that a socket has Go's poller if a sandbox forbids to wait without it,
// and that a read ends with an error if it is forbidden later.
func TestUnpolledForbidden(t *testing.T) {
	conn, before := listenNet(t), listenUnpolled(t).conn.(*unpolled)
	sandboxed(t, unix.EPERM, []uint32{unix.SYS_PPOLL}, func() {
		s, err := New(conn, &Config{Unpolled: true})
		if err != nil {
			t.Error(err)
		} else if s.Conn() != conn {
			t.Errorf("the socket waits by itself: %T", s.Conn())
		}
		calls := 0
		err = before.Read(func(uintptr) bool { calls++; return calls == 1000 })
		if calls != 1 || !errors.Is(err, os.ErrPermission) {
			t.Errorf("%d calls, %v", calls, err)
		}
	})
}
