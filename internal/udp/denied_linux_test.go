package udp

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// prohibit sends the ICMPv6 message that a router sends if a packet from a member is
// administratively prohibited (RFC 4443 §3.1), and waits until the socket has its error.
func prohibit(t *testing.T, m *Member) {
	t.Helper()
	raw, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		nettest.Missing(t, "no raw socket: "+err.Error())
	}
	defer unix.Close(raw)
	ip := make([]byte, 40)
	ip[0], ip[5], ip[6], ip[7] = 6<<4, 8, unix.IPPROTO_UDP, 64
	copy(ip[8:], m.local.Addr().AsSlice())
	copy(ip[24:], m.remote.Addr().AsSlice())
	message := append([]byte{1, 1, 0, 0, 0, 0, 0, 0}, ip...) // the kernel adds the checksum
	message = binary.BigEndian.AppendUint16(message, m.local.Port())
	message = binary.BigEndian.AppendUint16(message, m.remote.Port())
	message = append(message, 0, 8, 0, 0)
	if err := unix.Sendto(raw, message, 0, &unix.SockaddrInet6{Addr: m.local.Addr().As16()}); err != nil {
		t.Fatal(err)
	}
	fds := []unix.PollFd{{Fd: int32(m.socket.(*epollMember).fd)}}
	if n, err := unix.Poll(fds, 10_000); n != 1 || fds[0].Revents&unix.POLLERR == 0 {
		t.Fatalf("the message does not reach the socket: %d, %v", fds[0].Revents, err)
	}
}

// TestProhibited checks that ICMPv6 messages cause errors of one call, and do not make a group take
// the system calls for several messages for forbidden.
func TestProhibited(t *testing.T) {
	g, err := NewGroup()
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	peer := listen(t, "udp", "[::1]:0", nil)
	m, err := g.Dial(peer.LocalAddr(), nil)
	if err != nil {
		t.Fatal(err)
	}
	prohibit(t, m)
	if err := m.WriteBatch([]Message{{Data: []byte{1}}}); !errors.Is(err, unix.EACCES) {
		t.Errorf("write: got %v, want %v", err, unix.EACCES)
	}
	kernel := g.engine.(*epollGroup).kernel
	if kernel.unbatched.write.Load() {
		t.Error("messages are written one by one")
	}
	prohibit(t, m)
	r := newReceiver(true, firstBatch)
	if _, errno := kernel.receive(uintptr(m.socket.(*epollMember).fd), r.arm(firstBatch)); errno != unix.EACCES {
		t.Errorf("read: got %v, want %v", errno, unix.EACCES)
	}
	if kernel.unbatched.read {
		t.Error("messages are read one by one")
	}
}
