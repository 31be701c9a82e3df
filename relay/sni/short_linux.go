package sni

import (
	"container/list"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/hello"
)

// Sides of a connection.
const (
	ofClient = iota
	ofUpstream
)

// readable are the events after which a read returns something.
const readable = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR

// lateDial is the time that an attempt to connect should have in a loop.
const lateDial = 200 * time.Millisecond

// heads has buffers for the beginnings of connections.
var heads = sync.Pool{New: func() any { return new([hello.MaxStream]byte) }}

// short is a connection in a loop. Its sockets do not block. Events are reported once
// (EPOLLET), so that what was reported and not yet used stays in pending.
type short struct {
	conn    *conn
	server  *Server
	loop    *loop
	token   int32
	place   *list.Element
	fds     [2]int // -1: there is none
	pending [2]uint32

	// Until the upstream has got what the client has sent:
	head    *[hello.MaxStream]byte // nil: the client has sent nothing
	n       int                    // bytes in head
	records hello.Records
	hello   *Hello // nil: the ClientHello is not complete
	route   *Route // nil: none was chosen yet
	tries   *tries // nil: no upstream was chosen yet

	unreported *dialError // that a goroutine has to report, as a log may block; or nil
	why        error      // why the connection is refused; or nil

	// While the connection cannot leave the loop:
	leaving      func() // what a goroutine will do; nil: it does not leave
	leavingSince time.Time
	later        bool // the loop will try again
}

// begin asks the limits, and waits for the ClientHello.
func (s *short) begin() {
	if s.server.isBalancer(s.conn.from.Addr()) {
		s.promote()
		return
	}
	if err := s.conn.admit(s.conn.from); err != nil {
		s.refused(err)
		return
	}
	s.wait(ofClient)
}

// wait has the loop report events of a socket.
func (s *short) wait(side int32) {
	err := s.loop.watch(s.fds[side], s.token, side, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET)
	if err != nil {
		s.promote() // there are too many for epoll, but a goroutine can wait for one
	}
}

// ready goes on after events of a socket.
func (s *short) ready(side int32, events uint32) {
	s.pending[side] |= events
	switch {
	case s.conn.opened && s.mayMove():
		s.move(side)
	case s.conn.opened || s.leaving != nil: // it waits to leave
	case s.fds[ofUpstream] >= 0:
		s.connected()
	case s.hello == nil:
		s.readHello()
	}
}

// readHello reads the ClientHello, or a part of it.
func (s *short) readHello() {
	for s.hello == nil && s.pending[ofClient]&readable != 0 {
		if s.head == nil {
			s.head = heads.Get().(*[hello.MaxStream]byte)
		}
		n, err := s.read(ofClient, s.head[s.n:])
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			s.refused(&refusal{readFailure(err), err})
			return
		}
		s.n += n
		h := &Hello{Client: s.conn.from}
		switch err := parseHello(&s.records, s.head[:s.n], h); {
		case err == nil:
			s.hello = h
		case !errors.Is(err, hello.ErrMore):
			s.refused(err)
			return
		}
	}
	switch {
	case s.hello != nil:
		s.dial()
	case s.n == 0:
		s.dropHead()
	}
}

// dropHead gives the buffer back.
func (s *short) dropHead() {
	if s.head != nil {
		heads.Put(s.head)
	}
	s.head, s.n = nil, 0
}

// read reads from a socket. A read that does not fill b has taken all that was reported.
func (s *short) read(side int32, b []byte) (n int, err error) {
	for {
		n, err = unix.Read(s.fds[side], b)
		if err != unix.EINTR {
			break
		}
	}
	switch {
	case err == unix.EAGAIN:
		s.pending[side] &^= readable
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	case n < len(b):
		s.pending[side] &^= unix.EPOLLIN // an end is still to be read
	}
	return max(n, 0), err
}

// write writes to a socket, and returns how much it has taken.
func (s *short) write(side int32, b []byte) (n int, err error) {
	for {
		n, err = unix.Write(s.fds[side], b)
		switch err {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return 0, nil
		}
		return max(n, 0), err
	}
}

// dial finds the upstream, and begins to connect to it. A Router, and a look-up of a name, may
// take their time.
func (s *short) dial() {
	c := s.conn
	c.heard(s.hello)
	if s.server.conf.Router != nil {
		s.promote()
		return
	}
	var err error
	if s.route, err = c.choose(s.server.closing, s.hello); err != nil {
		s.refused(err)
		return
	}
	s.tries = c.pool.tries()
	u := s.tries.left[0]
	if !u.literal.IsValid() || s.isLate() {
		s.promote()
		return
	}
	s.tries.since = time.Now()
	u.active.Add(1)
	c.to = u
	if err := s.connect(u.literal); err != nil {
		s.dialFailed(err)
		return
	}
	s.wait(ofUpstream)
}

// isLate reports whether so little of the short life is left that a goroutine should dial: an
// attempt that has no answer when the connection leaves its loop has to be made again.
func (s *short) isLate() bool {
	age := s.server.short.age
	return age-time.Since(s.conn.began) < min(lateDial, age/2)
}

// connect begins to connect to an upstream.
func (s *short) connect(to netip.AddrPort) error {
	network, family, addr := sockaddrOf(to)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	s.fds[ofUpstream] = fd
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	if control := s.server.dialer.ControlContext; control != nil {
		if err := control(s.server.closing, network, "", rawSocket(fd)); err != nil {
			return err
		}
	}
	if err := unix.Connect(fd, addr); err != unix.EINPROGRESS {
		return err
	}
	return nil
}

// connected goes on when the upstream has accepted the connection, or has not.
func (s *short) connected() {
	events := s.pending[ofUpstream]
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		errno, err := unix.GetsockoptInt(s.fds[ofUpstream], unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil {
			err = unix.Errno(errno)
		}
		s.dialFailed(err)
		return
	}
	if events&unix.EPOLLOUT == 0 {
		return
	}
	if s.isSelf() {
		s.dialFailed(errLoop)
		return
	}
	s.conn.to.worked()
	s.server.counters.upstreamTime.add(time.Since(s.tries.began))
	s.greet()
}

// isSelf reports whether the connection leads to the server's own listener.
func (s *short) isSelf() bool {
	d, to := s.server.dialer, s.conn.to.literal
	return int(to.Port()) == d.own.Port && d.isSelf(s.localAddr(ofUpstream), to)
}

// dialFailed goes on with the other upstreams.
func (s *short) dialFailed(err error) {
	c := s.conn
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		to := net.TCPAddrFromAddrPort(c.to.literal)
		err = &net.OpError{Op: "dial", Net: "tcp", Addr: to, Err: os.NewSyscallError("connect", errno)}
	}
	s.tries.failed(c.to.dialFailed(err))
	c.to = nil
	s.unreported = s.tries.last
	s.redial()
}

// localAddr returns the address of a socket of this host.
func (s *short) localAddr(side int) netip.AddrPort {
	addr, _ := syscall.Getsockname(s.fds[side]) // the zero AddrPort after an error
	return addrPortOf(addr)
}

// greet sends the upstream what the client has sent.
func (s *short) greet() {
	c := s.conn
	if s.route.SendProxy > 0 {
		s.hello.Server = s.localAddr(ofClient)
	}
	first, err := c.withHeader(s.route, s.hello, s.sent())
	if err != nil {
		s.refused(err)
		return
	}
	n, err := s.write(ofUpstream, first)
	if err != nil {
		s.refused(&refusal{UpstreamFailed, err})
		return
	}
	c.fromClient.first = append(c.fromClient.first, first[n:]...)
	c.greeted(c.to.literal, s.n)
	s.dropHead()
	if len(c.fromClient.first) > 0 {
		s.promote()
		return
	}
	if s.move(ofClient) {
		s.move(ofUpstream)
	}
}

// move moves what a side has sent. It reports whether the connection is still in the loop.
func (s *short) move(from int32) bool {
	c := s.conn
	to, meter := 1-from, &c.fromClient
	if from == ofUpstream {
		meter = &c.fromUpstream
	}
	for s.pending[from]&readable != 0 && !meter.ended.Load() {
		n, err := s.read(from, s.loop.buf[:])
		switch {
		case err == unix.EAGAIN:
			return true
		case err == io.EOF:
			if !s.end(to, meter) {
				return false
			}
			continue
		case err != nil:
			s.fail(err)
			return false
		}
		sent, err := s.write(to, s.loop.buf[:n])
		if err != nil {
			s.fail(err)
			return false
		}
		if sent < n || s.isLong(uint64(n)) {
			meter.first = append(meter.first, s.loop.buf[sent:n]...)
			meter.Uint64.Add(uint64(n))
			s.leaveFor(func() {
				meter.Add(0) // offers the connection to the kernel
				c.relay()
			})
			return false
		}
		meter.Add(uint64(n))
	}
	if meter.ended.Load() && s.pending[from]&unix.EPOLLERR != 0 { // a reset after its end
		s.fail(unix.ECONNRESET)
		return false
	}
	return true
}

// isLong reports whether the connection is no longer short with more bytes, or may go into the
// kernel.
func (s *short) isLong(more uint64) bool {
	n := s.conn.fromClient.Load() + s.conn.fromUpstream.Load() + more
	return n > s.server.short.bytes || s.server.splicer != nil && n >= s.server.splicer.minBytes
}

// end passes on the end of a direction. It reports whether the other one goes on.
func (s *short) end(to int32, meter *meter) bool {
	meter.ended.Store(true)
	if s.conn.fromClient.ended.Load() && s.conn.fromUpstream.ended.Load() {
		s.close(false, nil)
		return false
	}
	if err := unix.Shutdown(s.fds[to], unix.SHUT_WR); err != nil {
		s.fail(err)
		return false
	}
	return true
}

// fail resets both sockets because of an error of one.
func (s *short) fail(err error) {
	s.conn.setAborted(err)
	s.close(true, nil)
}

// postAbort has the loop reset the connection, which was aborted.
func (s *short) postAbort() { s.loop.post(s.abort) }

// inLoop reports whether the connection is still in the loop.
func (s *short) inLoop() bool { return s.loop.shorts[s.token] == s }

// abort resets the connection, if it is still in the loop.
func (s *short) abort() {
	if !s.inLoop() {
		return
	}
	var why error
	if !s.conn.opened {
		why = s.conn.why()
	}
	s.close(true, why)
}

// refused ends a connection that gets no upstream. An alert takes its time.
func (s *short) refused(err error) {
	var failure *refusal
	if errors.As(err, &failure) && alertFor(failure.reason) != nil {
		s.why = err
		s.leaveFor(func() { s.conn.refuse(err) })
		return
	}
	s.close(true, err)
}

// close closes the sockets, and ends the connection. It refuses it, unless why is nil. A
// goroutine does so if there is something to log: a log may block.
func (s *short) close(reset bool, why error) {
	s.dropHead()
	s.loop.forget(s)
	s.conn.leftLoop()
	if s.unreported != nil || s.server.log.Enabled(context.Background(), slog.LevelDebug) {
		s.server.running.Go(func() { s.finish(reset, why) })
		return
	}
	s.finish(reset, why)
}

// finish does what close has to do when the loop has forgotten the connection.
func (s *short) finish(reset bool, why error) {
	if s.unreported != nil {
		s.conn.reportDial(s.unreported)
	}
	if why != nil {
		s.conn.refuse(why)
	}
	for side := range int32(2) {
		s.closeSocket(side, reset)
	}
	s.conn.finish()
	<-s.server.room
}

func (s *short) closeSocket(side int32, reset bool) {
	fd := s.fds[side]
	if fd < 0 {
		return
	}
	if reset {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // the reset may have come already
	}
	_ = unix.Close(fd)
	s.fds[side] = -1
}
