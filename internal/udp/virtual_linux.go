package udp

import (
	"errors"
	"net"
	"syscall"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// oobVirtual is a Conn that quic-go takes for a UDP socket with out-of-band
// data: it reads in batches, and hears and says ECN marks, local addresses and
// segment sizes in control messages.
type oobVirtual struct {
	*virtual
	raw syscall.RawConn
}

var _ interface {
	Conn
	quic.OOBCapablePacketConn
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
} = (*oobVirtual)(nil)

// wrapVirtual makes a conn on a UDP socket OOB-capable. All transports of one
// QUIC connection must be of one kind: quic-go decides at the beginning of a
// connection whether it marks packets with ECN, and panics if it can't later.
func wrapVirtual(v *virtual, s *Socket) (Conn, error) {
	udp, ok := s.conn.(*net.UDPConn)
	if !ok {
		return v, nil
	}
	raw, err := udp.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &oobVirtual{virtual: v, raw: raw}, nil
}

// IsTrain says whether control messages make a write one of several datagrams
// (UDP_SEGMENT).
func IsTrain(oob []byte) bool {
	var m Message
	parseControl(oob, &m)
	return m.SegmentSize > 0
}

// IsOffload says whether a write failed because the network device cannot do what
// trains need (EIO, see udp(7)).
func IsOffload(err error) bool { return errors.Is(err, unix.EIO) }

// SyscallConn lends the socket below to quic-go, to ask it what it can.
func (v *oobVirtual) SyscallConn() (syscall.RawConn, error) { return v.raw, nil }

// ReadBatch reads as many packets as there are. quic-go calls it in place of
// recvmmsg.
func (v *oobVirtual) ReadBatch(ms []ipv4.Message, _ int) (int, error) {
	return v.pop(len(ms), func(i int, q *queued) {
		m := &ms[i]
		m.N = copy(m.Buffers[0], q.buf[:q.n])
		m.NN = v.putOOB(m.OOB, q)
		m.Addr = v.addrOf(q.remote)
		q.release()
	})
}

// putOOB tells about a packet as the kernel would.
func (v *oobVirtual) putOOB(oob []byte, q *queued) int {
	var c control
	told := putAncillary(c.b[:0], &Message{Remote: q.remote, Local: q.local, ECN: q.ecn}, 1)
	return copy(oob, told)
}

// ReadMsgUDP reads one packet. quic-go does not call it.
func (v *oobVirtual) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	_, err = v.pop(1, func(_ int, q *queued) {
		n, oobn, addr = copy(b, q.buf[:q.n]), v.putOOB(oob, q), v.addrOf(q.remote)
		q.release()
	})
	return n, oobn, 0, addr, err
}

// WriteMsgUDP writes a packet, or a train of them if oob has its segment size.
func (v *oobVirtual) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	m := Message{Data: b, Remote: unmap(addr.AddrPort())}
	parseControl(oob, &m)
	if err := v.write(&m); err != nil {
		return 0, 0, err
	}
	return len(b), len(oob), nil
}
