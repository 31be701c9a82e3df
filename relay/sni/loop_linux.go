package sni

import (
	"container/list"
	"context"
	"errors"
	"math"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxEvents is the number of events that a loop takes at once.
const maxEvents = 128

// loop accepts connections and serves them while they are short, all on one goroutine: it waits
// for all sockets with one epoll(7). To wake a goroutine for each event, and to set up a
// net.TCPConn, costs more than what a short connection needs otherwise. A connection that lasts
// is promoted: it gets a goroutine for each direction.
//
// Only the loop's goroutine uses the sockets of its connections. Others post what it has to do.
type loop struct {
	server   *Server
	listener syscall.RawConn
	epoll    int
	file     *os.File // the epoll file, for which Go's poller waits
	raw      syscall.RawConn
	due      time.Time // when the waiting ends; or the zero time
	wake     int       // an eventfd
	shorts   map[int32]*short
	oldest   list.List // of *short, the oldest first
	stuck    []*short  // that will try again to leave
	next     int32     // for the next token
	buf      *[bufferSize]byte

	mu      sync.Mutex // guards the following
	posted  []func()   // what others want done
	waiting bool       // wake has to end the waiting
	closed  bool       // the listener is closing, or the loop has ended
}

// Tokens of epoll that belong to no connection.
const (
	tokenWake     = -1
	tokenListener = -2
)

// startLoops starts loops that accept connections. It reports false if there are none, so that
// goroutines have to accept.
func (s *Server) startLoops(failed func(error)) bool {
	if s.short.age == 0 {
		return false
	}
	var loops []*loop
	for range runtime.GOMAXPROCS(0) {
		l, err := newLoop(s)
		if err != nil {
			s.log.Warn("event loops for short connections are missing", "loops", len(loops), "want", runtime.GOMAXPROCS(0), "err", err)
			break
		}
		loops = append(loops, l)
	}
	if len(loops) == 0 {
		return false
	}
	s.loops = loops
	s.running.Go(func() {
		if err := s.watchListener(); err != nil {
			failed(err)
		}
	})
	for _, l := range loops {
		s.running.Go(func() {
			if err := l.run(); err != nil {
				failed(err)
			}
		})
	}
	return true
}

// listenerCheck is the time between two looks at the listener.
const listenerCheck = time.Second

// watchListener returns the error of a listener that somebody else has closed, of which epoll says
// nothing. It returns nil when the server accepts no more connections.
func (s *Server) watchListener() error {
	ticker := time.NewTicker(listenerCheck)
	defer ticker.Stop()
	for {
		select {
		case <-s.draining.Done():
			return nil
		case <-ticker.C:
		}
		raw, err := s.listener.SyscallConn()
		if err == nil {
			err = raw.Control(func(uintptr) {})
		}
		if err != nil && s.draining.Err() == nil {
			return err
		}
	}
}

// stopAccepting tells a loop that the listener closes.
func (l *loop) stopAccepting() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed { // epoll is open
		l.closed = true
		l.unlistenLocked()
	}
}

func newLoop(s *Server) (l *loop, err error) {
	l = &loop{server: s, epoll: -1, wake: -1, shorts: make(map[int32]*short), buf: new([bufferSize]byte)}
	if l.listener, err = s.listener.SyscallConn(); err != nil {
		return nil, err
	}
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	if err = unix.SetNonblock(l.epoll, true); err != nil { // so that Go's poller takes it
		l.close()
		return nil, err
	}
	l.file = os.NewFile(uintptr(l.epoll), "epoll")
	if l.raw, err = l.file.SyscallConn(); err != nil {
		l.close()
		return nil, err
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		l.close()
		return nil, err
	}
	if err = l.watch(l.wake, tokenWake, 0, unix.EPOLLIN); err == nil {
		err = errors.Join(l.inheritNoDelay(), l.listen())
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// inheritNoDelay has the listener's connections send each write at once, as Go's do.
func (l *loop) inheritNoDelay() (err error) {
	ctlErr := l.listener.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) })
	return errors.Join(ctlErr, err)
}

// close closes what only the loop uses.
func (l *loop) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	switch {
	case l.file != nil:
		_ = l.file.Close()
	case l.epoll >= 0:
		_ = unix.Close(l.epoll)
	}
	if l.wake >= 0 {
		_ = unix.Close(l.wake)
	}
	l.wake = -1
}

// watch has epoll report events of a socket.
func (l *loop) watch(fd int, token, side int32, events uint32) error {
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: token, Pad: side})
}

// listen begins to accept, unless the listener is closing.
func (l *loop) listen() (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	// All loops watch the listener, and each new connection wakes all that wait: EPOLLEXCLUSIVE
	// wakes one waiter of epoll_wait(2), but here Go's poller waits for the epoll file. Those that
	// come too late get EAGAIN.
	_ = l.listener.Control(func(fd uintptr) { // an error says that it is closed
		err = l.watch(int(fd), tokenListener, 0, unix.EPOLLIN)
	})
	return err
}

// resume accepts again after a pause.
func (l *loop) resume() {
	if err := l.listen(); err != nil { // too many are watched
		l.pauseAfter(err)
	}
}

func (l *loop) unlistenLocked() {
	_ = l.listener.Control(func(fd uintptr) { _ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, int(fd), nil) })
}

// pause stops to accept until a function has returned.
func (l *loop) pause(until func()) {
	l.mu.Lock()
	l.unlistenLocked()
	l.mu.Unlock()
	l.server.running.Go(func() {
		until()
		l.post(l.resume)
	})
}

// pauseAfter stops to accept for a while after an error.
func (l *loop) pauseAfter(err error) {
	l.pause(l.server.pauseAccepting)
	l.server.acceptFailed(err)
}

// leaveLater has a connection that lacks descriptors try again to leave.
func (l *loop) leaveLater(s *short) {
	l.oldest.Remove(s.place) // its age does not matter any more
	if s.later {
		return
	}
	s.later = true
	if l.stuck = append(l.stuck, s); len(l.stuck) == 1 {
		time.AfterFunc(acceptPause, func() { l.post(l.leaveStuck) })
	}
}

// leaveStuck lets connections try again to leave.
func (l *loop) leaveStuck() {
	stuck := l.stuck
	l.stuck = nil
	for _, s := range stuck {
		if s.inLoop() {
			s.leaveAgain()
		}
	}
}

// post has the loop call a function. A loop that has ended calls nothing.
func (l *loop) post(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wake < 0 {
		return
	}
	l.posted = append(l.posted, f)
	if l.waiting {
		l.waiting = false
		_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // fails only if it is set already
	}
}

// run serves connections until the server is closed, and all connections have left.
func (l *loop) run() error {
	defer l.close()
	defer context.AfterFunc(l.server.closing, func() { l.post(func() {}) })()
	events := make([]unix.EpollEvent, maxEvents)
	for len(l.shorts) > 0 || l.server.closing.Err() == nil {
		n, err := l.await(events)
		if err != nil { // the epoll descriptor is not ours any more
			for _, s := range l.shorts {
				s.conn.setAborted(err)
				s.abort()
			}
			return err
		}
		for i := range events[:n] {
			l.handle(&events[i])
		}
		l.callPosted()
		l.promoteOld()
	}
	return nil
}

// await waits until there are events, something is posted, or a connection is no longer short.
func (l *loop) await(events []unix.EpollEvent) (n int, err error) {
	if first := l.oldest.Front(); first != nil && l.due.IsZero() {
		l.due = first.Value.(*short).conn.began.Add(l.server.short.age)
		if err := l.file.SetReadDeadline(l.due); err != nil {
			return 0, err
		}
	}
	if !l.mayWait() {
		return 0, nil
	}
	waitErr := l.raw.Read(func(fd uintptr) bool {
		for {
			if n, err = unix.EpollWait(int(fd), events, 0); err != unix.EINTR {
				return n != 0
			}
		}
	})
	switch {
	case errors.Is(waitErr, os.ErrDeadlineExceeded):
		l.due = time.Time{}
		return 0, l.file.SetReadDeadline(l.due)
	case waitErr != nil:
		return 0, waitErr
	}
	return max(n, 0), err
}

// mayWait reports whether nothing is posted. Whoever posts something from now on ends the waiting.
func (l *loop) mayWait() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = len(l.posted) == 0
	return l.waiting
}

// callPosted calls what was posted.
func (l *loop) callPosted() {
	l.mu.Lock()
	posted := l.posted
	l.posted, l.waiting = nil, false
	l.mu.Unlock()
	for _, f := range posted {
		f()
	}
}

// promoteOld promotes the connections that are no longer short.
func (l *loop) promoteOld() {
	for first := l.oldest.Front(); first != nil; first = l.oldest.Front() {
		s := first.Value.(*short)
		if time.Since(s.conn.began) < l.server.short.age {
			return
		}
		s.promote()
	}
}

func (l *loop) handle(e *unix.EpollEvent) {
	switch e.Fd {
	case tokenWake:
		var count [8]byte
		_, _ = unix.Read(l.wake, count[:]) // what was posted follows
	case tokenListener:
		l.accept()
	default:
		if s := l.shorts[e.Fd]; s != nil { // it has not left with an event before
			s.ready(e.Pad, e.Events)
		}
	}
}

// accept accepts a connection. While the server has no room for more, it accepts none.
func (l *loop) accept() {
	s := l.server
	select {
	case s.room <- struct{}{}:
	default:
		l.pause(s.awaitRoom)
		return
	}
	var fd int
	var from syscall.Sockaddr
	var err error
	ctlErr := l.listener.Control(func(listener uintptr) {
		fd, from, err = syscall.Accept4(int(listener), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	})
	switch {
	case ctlErr != nil:
		<-s.room // the listener is closed
	case err == nil:
		l.begin(fd, from)
	default:
		<-s.room
		if err != unix.EAGAIN && err != unix.EINTR && err != unix.ECONNABORTED {
			l.pauseAfter(err)
		}
	}
}

// awaitRoom waits until there is room for a connection.
func (s *Server) awaitRoom() {
	select {
	case s.room <- struct{}{}:
		<-s.room
	case <-s.draining.Done():
	}
}

// begin serves a connection that was accepted.
func (l *loop) begin(fd int, from syscall.Sockaddr) {
	c := l.server.newConn(addrPortOf(from))
	s := &short{conn: c, server: l.server, loop: l, token: l.newToken(), fds: [2]int{fd, -1}}
	c.short = s
	l.shorts[s.token] = s
	s.place = l.oldest.PushBack(s)
	l.server.enter(c)
	s.begin()
}

// newToken returns a token that no connection has.
func (l *loop) newToken() int32 {
	for {
		l.next = (l.next + 1) & math.MaxInt32
		if l.shorts[l.next] == nil {
			return l.next
		}
	}
}

// forget forgets a connection that leaves.
func (l *loop) forget(s *short) {
	delete(l.shorts, s.token)
	l.oldest.Remove(s.place)
}
