package udp

import (
	"errors"
	"net"
	"syscall"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// oobVirtual is a Conn with out-of-band data, which quic-go uses like a UDP socket: it reads in
// batches, and has ECN marks, local addresses and segment sizes in control messages.
type oobVirtual struct {
	*virtual
	raw syscall.RawConn
}

var _ interface {
	Conn
	quic.OOBCapablePacketConn
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
} = (*oobVirtual)(nil)

// wrapVirtual makes an oobVirtual if the underlying socket is a UDP socket of the kernel, also one
// without Go's poller. All transports of one QUIC connection must be of the same kind: quic-go
// decides at the beginning of a connection whether it marks packets with ECN, and panics if it
// cannot do so later.
func wrapVirtual(v *virtual, s *Socket) Conn {
	kernel, ok := s.engine.(*kernelEngine)
	if !ok {
		return v
	}
	return &oobVirtual{virtual: v, raw: kernel.raw}
}

// IsTrain says whether control messages make a written message a train (UDP_SEGMENT).
func IsTrain(oob []byte) bool {
	var m Message
	parseControl(oob, &m)
	return m.SegmentSize > 0
}

// IsOffload says whether a write failed because the network device does not support trains
// (EIO, see udp(7)).
func IsOffload(err error) bool { return errors.Is(err, unix.EIO) }

// SyscallConn returns the underlying socket, whose capabilities quic-go checks.
func (v *oobVirtual) SyscallConn() (syscall.RawConn, error) { return v.raw, nil }

// ReadBatch reads as many packets as there are, at most len(ms). quic-go calls it in place of
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

// putOOB writes the control messages of a packet, as the kernel does, and returns their length.
func (v *oobVirtual) putOOB(oob []byte, q *queued) int {
	var c control
	messages := putAncillary(c.b[:0], &Message{Remote: q.remote, Local: q.local, ECN: q.ecn}, 1)
	return copy(oob, messages)
}

// ReadMsgUDP reads one packet. quic-go does not call it.
func (v *oobVirtual) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	_, err = v.pop(1, func(_ int, q *queued) {
		n, oobn, addr = copy(b, q.buf[:q.n]), v.putOOB(oob, q), v.addrOf(q.remote)
		q.release()
	})
	return n, oobn, 0, addr, err
}

// WriteMsgUDP writes a packet, or a train if oob has a segment size.
func (v *oobVirtual) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	m := Message{Data: b, Remote: unmap(addr.AddrPort())}
	parseControl(oob, &m)
	if err := v.write(&m); err != nil {
		return 0, 0, err
	}
	return len(b), len(oob), nil
}
