package udp

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxBatch is how many messages one system call sends or receives. Their
	// indices fit in a uint8 (see recent).
	maxBatch = 256
	// trainSize is the size of a buffer for a train. It is not a power of two, so
	// that the beginnings of the buffers do not compete for the same cache lines.
	// Most packets use only the beginning.
	trainSize = 64<<10 + 5*64
	// packetSize is the size of a buffer if there are no trains. A jumbo frame of
	// 9000 bytes fits.
	packetSize = 9<<10 + 5*64
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// kernelEngine reads and writes batches with recvmmsg and sendmmsg.
type kernelEngine struct {
	socket    *Socket
	raw       syscall.RawConn
	v6        bool // the socket's family is AF_INET6
	unbatched unbatched

	// Used only by the goroutine that reads.
	recv    func(fd uintptr) bool // recvmmsg, made once, so that a read does not allocate
	rx      *receiver             // has the messages that were read last; nil: none
	ms      []Message             // where to put messages
	want    int                   // how many messages to read at most
	got     int                   // how many were read
	errno   unix.Errno            // why none was read
	level   bool                  // a wait ends at once if there is a packet: so does poll(2), not Go's poller
	drained bool                  // with level: the last read has left no packet, so the next one waits first
	dropped uint32                // the last value of SO_RXQ_OVFL
}

var _ engine = (*kernelEngine)(nil)

func newKernelEngine(s *Socket, conn *net.UDPConn, cfg *Config) (engine, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	e := &kernelEngine{socket: s, raw: raw}
	e.recv = e.recvmmsg
	var setupErr error
	if err := raw.Control(func(fd uintptr) { setupErr = e.setup(int(fd), cfg) }); err != nil {
		return nil, err
	}
	if setupErr != nil || !cfg.Unpolled || !canWait() {
		return e, setupErr
	}
	u, err := unpoll(conn)
	if err != nil {
		return nil, err
	}
	s.conn, e.raw, e.level = u, u, true
	return e, nil
}

// setup makes the kernel report everything about received packets. Errors are ignored,
// because a socket of one IP version refuses the options of the other.
func (e *kernelEngine) setup(fd int, cfg *Config) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("get family: %w", err)
	}
	e.v6 = domain == unix.AF_INET6
	for _, opt := range []struct{ level, name, value int }{
		{unix.IPPROTO_IP, unix.IP_PKTINFO, 1},
		{unix.IPPROTO_IP, unix.IP_RECVTOS, 1},
		{unix.IPPROTO_IP, unix.IP_RECVTTL, 1},
		{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1},
		{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1},
		{unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1},
		{unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1},
		// Do not fragment (RFC 9000 §14), and do not let ICMP messages limit
		// the size of packets: QUIC discovers the path MTU itself.
		{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
		{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE},
	} {
		_ = unix.SetsockoptInt(fd, opt.level, opt.name, opt.value)
	}
	e.socket.gro = !cfg.DisableGRO && unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil
	_, err = unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	e.socket.gso.Store(!cfg.DisableGSO && err == nil)
	return nil
}

// forceBuffers makes the buffers larger than net.core.rmem_max allows, if the process has
// CAP_NET_ADMIN.
func forceBuffers(conn *net.UDPConn, read, write int) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, read)
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, write)
	})
}

// sockaddr has room for the addresses of both IP versions.
type sockaddr = unix.RawSockaddrInet6

// putAddr writes an address in the form of the socket's family, and returns its length.
func (e *kernelEngine) putAddr(sa *sockaddr, a netip.AddrPort) uint32 {
	port := (*[2]byte)(unsafe.Pointer(&sa.Port)) // at the same offset in both families
	*port = [2]byte{byte(a.Port() >> 8), byte(a.Port())}
	if e.v6 {
		sa.Family = unix.AF_INET6
		sa.Flowinfo, sa.Addr, sa.Scope_id = 0, a.Addr().As16(), scopeOf(a.Addr())
		return unix.SizeofSockaddrInet6
	}
	sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
	sa4.Family = unix.AF_INET
	sa4.Zero = [8]uint8{}
	if a.Addr().Is4() {
		sa4.Addr = a.Addr().As4()
	} else {
		sa4.Family = unix.AF_INET6 // the kernel refuses it with an error
	}
	return unix.SizeofSockaddrInet4
}

// getAddr reads an address of either family.
func getAddr(sa *sockaddr) netip.AddrPort {
	p := (*[2]byte)(unsafe.Pointer(&sa.Port))
	port := uint16(p[0])<<8 | uint16(p[1])
	if sa.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr), port)
	}
	addr := netip.AddrFrom16(sa.Addr).Unmap()
	if addr.IsLinkLocalUnicast() && addr.Is6() {
		addr = withScope(addr, sa.Scope_id)
	}
	return netip.AddrPortFrom(addr, port)
}

// scopeByName returns the index of an interface, or 0 if there is none.
func scopeByName(name string) uint32 {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0
	}
	return uint32(i.Index)
}
