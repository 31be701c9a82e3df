package sockmap

import (
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// side is one of the two sockets of a pair.
type side struct {
	conn   *net.TCPConn
	raw    syscall.RawConn
	cookie uint64 // the kernel's name of the socket

	received, sent uint64 // when the kernel took over
	finished       bool   // the end has sent its FIN, and it was passed on
}

// state is what TCP knows about a socket.
type state struct {
	received uint64 // bytes that have arrived, and 1 for a FIN
	sent     uint64 // bytes that were given to the socket, and 1 for a SYN of its own
	open     bool   // nobody has finished
	finished bool   // the end has sent its FIN
	reset    bool   // by the end, or the system has given up
}

// The states of a socket, as in TCP_INFO.
const (
	stateEstablished = 1
	stateTimeWait    = 6
	stateClose       = 7
	stateCloseWait   = 8
	stateLastAck     = 9
	stateClosing     = 11
)

func newSide(conn *net.TCPConn) (s side, err error) {
	s.conn = conn
	if s.raw, err = conn.SyscallConn(); err != nil {
		return s, err
	}
	err = s.control(func(fd int) (err error) {
		s.cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		return err
	})
	return s, err
}

// control calls f with the socket's descriptor.
func (s *side) control(f func(fd int) error) (err error) {
	if ctlErr := s.raw.Control(func(fd uintptr) { err = f(int(fd)) }); ctlErr != nil {
		return ctlErr
	}
	return err
}

// state asks the kernel.
func (s *side) state() (st state, err error) {
	err = s.control(func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return fmt.Errorf("TCP_INFO: %w", err)
		}
		// An acknowledgement moves bytes from the second number to the first. In this order
		// the sum may be too small, but never too large.
		queued, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		if err != nil {
			return fmt.Errorf("SIOCOUTQ: %w", err)
		}
		st.received, st.sent = info.Bytes_received, info.Bytes_acked+uint64(queued)
		switch info.State {
		case stateEstablished:
			st.open = true
		case stateCloseWait, stateLastAck, stateClosing, stateTimeWait:
			st.finished = true
		case stateClose: // after FINs in both directions, or an error
			errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			st.finished, st.reset = err == nil && errno == 0, err != nil || errno != 0
		}
		return nil
	})
	return st, err
}

// unread returns the number of bytes that have arrived and were not read.
func (s *side) unread() (n int, err error) {
	err = s.control(func(fd int) (err error) {
		n, err = unix.IoctlGetInt(fd, unix.SIOCINQ)
		return err
	})
	return n, err
}

const (
	drainBuffer = 16 << 10
	drainRounds = 64
)

// drain copies what has arrived. Then there is no segment of which a part was read: the
// kernel would send all of it.
func (s *side) drain(to *net.TCPConn) error {
	var buf []byte
	for range drainRounds {
		n, err := s.unread()
		if err != nil || n == 0 {
			return err
		}
		if buf == nil {
			buf = make([]byte, drainBuffer)
		}
		if n, err = s.conn.Read(buf); err != nil {
			return err
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return err
		}
	}
	return ErrNotQuiet
}

// mark notes how many bytes the socket has received and sent. Bytes that were not read are
// still to be relayed.
func (s *side) mark() error {
	for {
		before, err := s.state()
		if err != nil {
			return err
		}
		unread, err := s.unread()
		if err != nil {
			return err
		}
		after, err := s.state()
		if err != nil {
			return err
		}
		if !after.open {
			return ErrNotEstablished
		}
		if before == after {
			s.received, s.sent = after.received-uint64(unread), after.sent
			return nil
		}
	}
}

// wake has the kernel look at what arrived before the takeover: the kernel asks the program
// when a socket has become readable, which a new low-water mark makes it check.
func (s *side) wake() error {
	return s.control(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1) })
}

// relayed returns how many bytes of the end the kernel has taken out of the socket.
func (s *side) relayed() (uint64, error) {
	unread, err := s.unread()
	if err != nil {
		return 0, err
	}
	st, err := s.state()
	return s.half(st).Bytes - uint64(unread), err
}

// half returns what has come from the end.
func (s *side) half(st state) Half {
	n := st.received - s.received
	if st.finished || s.finished {
		n-- // the FIN
	}
	return Half{Bytes: n, Finished: s.finished}
}
