package sni

import (
	"bufio"
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// promote has goroutines serve a connection from now on, from where it is.
func (s *short) promote() {
	c := s.conn
	if c.opened {
		s.leaveFor(c.relay)
		return
	}
	if s.tries != nil {
		s.redial()
		return
	}
	h, first := s.hello, append([]byte(nil), s.sent()...)
	s.leaveFor(func() {
		c.serve(first, func(r *bufio.Reader) error {
			if h == nil {
				return c.open(s.server.closing, r)
			}
			h.Server = addrPort(c.client.LocalAddr())
			return c.direct(s.server.closing, h, r)
		})
	})
}

// sent returns what the client has sent so far.
func (s *short) sent() []byte {
	if s.head == nil {
		return nil
	}
	return s.head[:s.n]
}

// redial has a goroutine dial the upstreams that are left. One that has not answered yet comes
// first again, so that it is left out if it does not answer in time.
func (s *short) redial() {
	c := s.conn
	if c.to != nil { // it has not answered yet
		c.to.active.Add(-1)
		c.to = nil
	}
	s.closeSocket(ofUpstream, true)
	h, route, tries, first := s.hello, s.route, s.tries, append([]byte(nil), s.sent()...)
	s.leaveFor(func() {
		c.serve(first, func(r *bufio.Reader) error {
			h.Server = addrPort(c.client.LocalAddr())
			return c.connect(s.server.closing, route, h, r, tries)
		})
	})
}

// leaveFor has a goroutine of its own serve the connection by calling a function. Without
// descriptors for it, the connection waits in its loop.
func (s *short) leaveFor(serve func()) {
	s.leaving, s.leavingSince = serve, time.Now()
	s.leave()
}

// leave leaves the loop, or tries again later.
func (s *short) leave() {
	client, upstream, err := s.copies()
	switch {
	case err == nil:
		s.left(client, upstream)
	case local(err) && (s.conn.opened || time.Since(s.leavingSince) < alertTime):
		s.loop.leaveLater(s)
	default:
		s.giveUp(err)
	}
}

// left has a goroutine serve the connection by copies of its sockets.
func (s *short) left(client, upstream *net.TCPConn) {
	c, serve, report := s.conn, s.leaving, s.unreported
	for side, fd := range s.fds {
		if fd >= 0 {
			_ = unix.EpollCtl(s.loop.epoll, unix.EPOLL_CTL_DEL, fd, nil) // it may not be there
			s.closeSocket(int32(side), false)
		}
	}
	s.dropHead()
	s.loop.forget(s)
	c.promoted(client, upstream)
	s.server.running.Go(func() {
		defer func() { <-s.server.room }()
		defer c.finish()
		if report != nil {
			c.reportDial(report)
		}
		serve()
	})
}

// leaveAgain tries again to leave. Meanwhile a connection with nothing left to write goes on.
func (s *short) leaveAgain() {
	s.later = false
	s.leave()
	for side := range int32(2) {
		if s.inLoop() && s.mayMove() {
			s.move(side)
		}
	}
}

// mayMove reports whether the loop moves what the sides send.
func (s *short) mayMove() bool {
	c := s.conn
	return c.opened && len(c.fromClient.first)+len(c.fromUpstream.first) == 0
}

// giveUp ends a connection that cannot leave its loop. A client that speaks TLS gets the alert
// that a goroutine would have sent.
func (s *short) giveUp(err error) {
	if s.conn.opened {
		s.fail(err)
		return
	}
	why := s.why
	switch {
	case why != nil:
	case s.tries != nil:
		why = &refusal{UpstreamFailed, errors.Join(s.tries.failure(), err)}
	default:
		why = &refusal{HelloReset, err}
	}
	var failure *refusal
	if errors.As(why, &failure) && s.hello != nil && s.hello.TLS {
		if record := alertFor(failure.reason); record != nil {
			_, _ = s.write(ofClient, record)                 // the client may have left
			_ = unix.Shutdown(s.fds[ofClient], unix.SHUT_WR) // the same
			s.close(false, why)
			return
		}
	}
	s.close(true, why)
}

// copies makes net.TCPConns of copies of the sockets. The loop keeps the sockets.
func (s *short) copies() (client, upstream *net.TCPConn, err error) {
	if client, err = s.copyOf(ofClient); err != nil {
		return nil, nil, err
	}
	if upstream, err = s.copyOf(ofUpstream); err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	return client, upstream, nil
}

// copyOf makes a net.TCPConn of a copy of a socket. It returns nil if there is none.
func (s *short) copyOf(side int32) (*net.TCPConn, error) {
	if s.fds[side] < 0 {
		return nil, nil
	}
	fd, err := unix.FcntlInt(uintptr(s.fds[side]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "")
	defer file.Close() // the connection has another copy
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, errors.Join(err, unix.SetNonblock(s.fds[side], true)) // which File.Fd may have changed
	}
	return conn.(*net.TCPConn), nil
}
