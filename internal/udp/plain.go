package udp

import (
	"errors"
	"net"
	"net/netip"
	"os"
)

// maxReadErrors is how many errors in a row mean that a socket has failed.
const maxReadErrors = 1000

// plainEngine reads and writes packets one by one, on any net.PacketConn.
type plainEngine struct {
	socket *Socket
	udp    *net.UDPConn // nil: the conn is of another type
	buf    []byte
}

var _ engine = (*plainEngine)(nil)

func newPlainEngine(s *Socket) *plainEngine {
	udp, _ := s.conn.(*net.UDPConn)
	return &plainEngine{socket: s, udp: udp, buf: make([]byte, maxPayload)}
}

func (e *plainEngine) read(ms []Message) (int, error) {
	if len(ms) == 0 {
		return 0, nil
	}
	for failed := 0; ; failed++ {
		n, from, err := e.readFrom()
		if err == nil {
			ms[0] = Message{Data: e.buf[:n], Remote: unmap(from)}
			return 1, nil
		}
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) || failed == maxReadErrors {
			return 0, err
		}
		e.socket.stats.rxErrors.Add(1)
	}
}

func (e *plainEngine) readFrom() (int, netip.AddrPort, error) {
	if e.udp != nil {
		return e.udp.ReadFromUDPAddrPort(e.buf)
	}
	n, from, err := e.socket.conn.ReadFrom(e.buf)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	udp, ok := from.(*net.UDPAddr)
	if !ok {
		return 0, netip.AddrPort{}, errors.New("source of packet is not a UDP address")
	}
	return n, udp.AddrPort(), nil
}

func (e *plainEngine) write(ms []Message) error {
	var last error
	for i := range ms {
		m := &ms[i]
		for segment := range m.Segments() {
			err := e.writeTo(segment, m.Remote)
			switch {
			case errors.Is(err, net.ErrClosed):
				return err
			case err != nil:
				e.socket.stats.txErrors.Add(1)
				last = err
			default:
				e.socket.sent(1, len(segment))
			}
		}
	}
	return last
}

func (e *plainEngine) writeTo(b []byte, to netip.AddrPort) error {
	var err error
	if e.udp != nil {
		_, err = e.udp.WriteToUDPAddrPort(b, to)
	} else {
		_, err = e.socket.conn.WriteTo(b, net.UDPAddrFromAddrPort(to))
	}
	return err
}
