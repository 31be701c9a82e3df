package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/decap"
)

const (
	vnetLen    = 10 // of struct virtio_net_hdr
	gsoUDP     = 5  // VIRTIO_NET_HDR_GSO_UDP_L4
	maxFrame   = 1 << 17
	bufferSize = 16 << 20
)

// Socket is an AF_PACKET socket. Only one goroutine may call Read. The other methods may
// be called concurrently.
type Socket struct {
	file     *os.File
	conn     syscall.RawConn
	loopback map[int]bool
	buf      []byte // the virtio_net_hdr, if there is one, and the packet
	control  []byte
	vnet     int // vnetLen, or 0 if the kernel does not support it for all packets

	mu      sync.Mutex // guards the following
	dropped uint64
}

// Open captures on the interfaces with these names, or on all if there are no names. The
// error wraps os.ErrPermission without CAP_NET_RAW.
func Open(names []string) (*Socket, error) {
	s := &Socket{
		loopback: make(map[int]bool),
		buf:      make([]byte, vnetLen+maxFrame),
		control:  make([]byte, 256),
	}
	indexes, err := s.interfaces(names)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := s.setup(fd, indexes); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	s.file = os.NewFile(uintptr(fd), "packet")
	if s.conn, err = s.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	return s, nil
}

// interfaces returns the indexes of the named interfaces, and notes which ones are
// loopback.
func (s *Socket) interfaces(names []string) (indexes []int, err error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	byName := make(map[string]int)
	for _, i := range all {
		byName[i.Name] = i.Index
		s.loopback[i.Index] = i.Flags&net.FlagLoopback != 0
	}
	for _, name := range names {
		index, ok := byName[name]
		if !ok {
			return nil, fmt.Errorf("no interface %q", name)
		}
		indexes = append(indexes, index)
	}
	return indexes, nil
}

// setup sets the filter and options and then binds the socket, so that it gets only the
// packets of the interfaces.
func (s *Socket) setup(fd int, indexes []int) error {
	if err := attachFilter(fd, indexes); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferSize); err != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bufferSize) // as large as the system allows
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return os.NewSyscallError("setsockopt SO_TIMESTAMPNS", err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1) == nil {
		s.vnet = vnetLen
	}
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all}))
}

// Read waits for a packet. f.Data is valid until the next Read. After Close the error
// wraps net.ErrClosed.
func (s *Socket) Read(f *Frame) error {
	for {
		var n, controls int
		var from unix.Sockaddr
		var failed error
		err := s.conn.Read(func(fd uintptr) bool {
			n, controls, _, from, failed = unix.Recvmsg(int(fd), s.buf, s.control, unix.MSG_TRUNC)
			return failed != unix.EAGAIN
		})
		switch {
		case err != nil:
			return net.ErrClosed
		case failed == unix.EINTR || failed == unix.ENETDOWN:
			continue
		case failed == unix.EINVAL && s.vnet != 0:
			// Older kernels have no virtio_net_hdr for several UDP datagrams in one packet.
			if err := s.withoutVnet(); err != nil {
				return err
			}
			continue
		case failed != nil:
			return os.NewSyscallError("recvmsg", failed)
		}
		if s.fill(f, n, s.control[:controls], from) {
			return nil
		}
	}
}

// withoutVnet receives packets without a virtio_net_hdr from now on.
func (s *Socket) withoutVnet() (err error) {
	s.vnet = 0
	if err := s.conn.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_VNET_HDR, 0)
	}); err != nil {
		return net.ErrClosed
	}
	return os.NewSyscallError("setsockopt PACKET_VNET_HDR", err)
}

// fill sets f to the packet that was received. It returns false if the packet is to be
// skipped: on loopback each packet comes twice, as sent and as received.
func (s *Socket) fill(f *Frame, n int, control []byte, from unix.Sockaddr) bool {
	link, ok := from.(*unix.SockaddrLinklayer)
	if !ok || n < s.vnet || link.Pkttype == unix.PACKET_OUTGOING && s.loopback[link.Ifindex] {
		return false
	}
	packet := s.buf[:min(n, len(s.buf))]
	*f = Frame{
		Time: time.Now(), Interface: link.Ifindex, Link: decap.LinkRaw, Data: packet[s.vnet:], Length: n - s.vnet,
		Outgoing: link.Pkttype == unix.PACKET_OUTGOING, Incoming: link.Pkttype == unix.PACKET_HOST,
	}
	if link.Hatype == unix.ARPHRD_ETHER || link.Hatype == unix.ARPHRD_LOOPBACK {
		f.Link = decap.LinkEthernet
	}
	if s.vnet != 0 && packet[1] == gsoUDP {
		f.SegmentSize = int(binary.NativeEndian.Uint16(packet[4:]))
	}
	if t, ok := timestamp(control); ok {
		f.Time = t
	}
	return true
}

// timestamp returns the time at which the kernel got the packet, and whether there is
// one.
func timestamp(control []byte) (time.Time, bool) {
	for len(control) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return time.Time{}, false
		}
		if h.Level == unix.SOL_SOCKET && h.Type == unix.SO_TIMESTAMPNS && len(data) >= int(unsafe.Sizeof(unix.Timespec{})) {
			ts := *(*unix.Timespec)(unsafe.Pointer(&data[0]))
			return time.Unix(ts.Unix()), true
		}
		control = rest
	}
	return time.Time{}, false
}

// Dropped returns the number of packets that the kernel has dropped because the receive
// buffer was full.
func (s *Socket) Dropped() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn.Control(func(fd uintptr) {
		// The kernel resets its counter with each call.
		if stats, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			s.dropped += uint64(stats.Drops)
		}
	})
	return s.dropped
}

// Close ends Read. It may be called more than once.
func (s *Socket) Close() error {
	if err := s.file.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
