package sni

import (
	"io"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestResetSeenByOther checks that a reset of the upstream stays a reset if the error was returned
// to the other direction, whatever follows.
func TestResetSeenByOther(t *testing.T) {
	u := newUpstream(t)
	s := newServer(t, &Config{Routes: routeTo(u)})
	near, far := tcpPair(t)     // the client, and the relay's socket to it
	relay, server := tcpPair(t) // the relay's socket to the upstream, and the upstream
	reset(server)
	nettest.Eventually(t, "the reset", func() bool { return isClosed(relay) })
	raw, err := relay.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { _, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR) }); err != nil {
		t.Fatal(err)
	}
	c := &conn{server: s, client: far, upstream: relay}
	c.copy(far, relay, &c.fromUpstream, &c.fromClient)
	if n, err := near.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("the client got %d bytes and %v, want a reset", n, err)
	}
	if c.why() != syscall.ECONNRESET {
		t.Errorf("got %v, want %v", c.why(), syscall.ECONNRESET)
	}
}

// tcpPair returns two connected sockets.
func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialed.Close(); accepted.Close() })
	return dialed.(*net.TCPConn), accepted.(*net.TCPConn)
}
