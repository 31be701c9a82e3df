package nettest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// streamWindow is how many bytes a direction of a stream holds that have not been read.
const streamWindow = 256 << 10

// ListenTCP opens a listener at addr for streams of [Network.DialTCP]. It panics if addr is in
// use.
func (n *Network) ListenTCP(addr string) net.Listener {
	l := &listener{network: n, addr: netip.MustParseAddrPort(addr), queue: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[l.addr] != nil {
		panic("nettest: address in use: " + addr)
	}
	if n.listeners == nil {
		n.listeners = make(map[netip.AddrPort]*listener)
	}
	n.listeners[l.addr] = l
	return l
}

type listener struct {
	network *Network
	addr    netip.AddrPort
	queue   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (l *listener) Close() error {
	l.once.Do(func() {
		l.network.mu.Lock()
		defer l.network.mu.Unlock()
		delete(l.network.listeners, l.addr)
		close(l.closed)
	})
	return nil
}

// Addr implements [net.Listener].
func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// DialTCP opens a stream, a reliable connection like one of TCP, from one address to another.
// Of the conditions of the network only the delay holds for it.
func (n *Network) DialTCP(ctx context.Context, from, to string) (net.Conn, error) {
	source, target := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	n.mu.Lock()
	l := n.listeners[target]
	delay := n.conditionsLocked(Packet{From: source, To: target}).Delay
	n.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(target), Err: syscall.ECONNREFUSED}
	}
	there, back := newDirection(delay), newDirection(delay)
	client := &stream{in: back, out: there, local: source, remote: target}
	server := &stream{in: there, out: back, local: target, remote: source}
	timer := time.NewTimer(2 * delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case l.queue <- server:
		return client, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(target), Err: syscall.ECONNREFUSED}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// stream is one end of a connection.
type stream struct {
	in, out       *direction
	local, remote netip.AddrPort
}

var _ net.Conn = (*stream)(nil)

// Read implements [net.Conn].
func (s *stream) Read(b []byte) (int, error) { return s.in.read(b) }

// Write implements [net.Conn].
func (s *stream) Write(b []byte) (int, error) { return s.out.write(b) }

// Close implements [net.Conn].
func (s *stream) Close() error {
	s.in.end(true)
	s.out.end(false)
	return nil
}

// LocalAddr implements [net.Conn].
func (s *stream) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(s.local) }

// RemoteAddr implements [net.Conn].
func (s *stream) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.remote) }

// SetDeadline implements [net.Conn].
func (s *stream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline implements [net.Conn].
func (s *stream) SetReadDeadline(t time.Time) error {
	s.in.update(func() { s.in.readBy = t })
	return nil
}

// SetWriteDeadline implements [net.Conn].
func (s *stream) SetWriteDeadline(t time.Time) error {
	s.out.update(func() { s.out.writeBy = t })
	return nil
}

// direction is one direction of a stream.
type direction struct {
	delay time.Duration

	mu              sync.Mutex // guards the following
	segments        []segment
	size            int  // of the segments
	over            bool // the writer has closed it
	gone            bool // the reader has closed it
	readBy, writeBy time.Time
	changed         chan struct{} // closed and replaced when any of these changes
}

// segment is what one Write has written.
type segment struct {
	data []byte
	due  time.Time
}

func newDirection(delay time.Duration) *direction {
	return &direction{delay: delay, changed: make(chan struct{})}
}

// update changes the state, and wakes those who wait.
func (d *direction) update(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	d.wakeLocked()
}

func (d *direction) wakeLocked() {
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *direction) end(reader bool) {
	d.update(func() {
		d.gone = d.gone || reader
		d.over = d.over || !reader
	})
}

// waitLocked waits for a change, or until a time that is not zero.
func (d *direction) waitLocked(until time.Time) {
	changed := d.changed
	d.mu.Unlock()
	defer d.mu.Lock()
	timeout, stop := timer(until)
	defer stop()
	select {
	case <-changed:
	case <-timeout:
	}
}

func (d *direction) read(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		now, until := time.Now(), d.readBy
		switch {
		case d.gone:
			return 0, net.ErrClosed
		case !d.readBy.IsZero() && !d.readBy.After(now):
			return 0, os.ErrDeadlineExceeded
		case len(d.segments) > 0 && !d.segments[0].due.After(now):
			return d.takeLocked(b), nil
		case len(d.segments) > 0:
			if due := d.segments[0].due; until.IsZero() || due.Before(until) {
				until = due
			}
		case d.over:
			return 0, io.EOF
		}
		d.waitLocked(until)
	}
}

// takeLocked takes bytes out of the first segment.
func (d *direction) takeLocked(b []byte) int {
	n := copy(b, d.segments[0].data)
	d.size -= n
	if d.segments[0].data = d.segments[0].data[n:]; len(d.segments[0].data) == 0 {
		d.segments = d.segments[1:]
	}
	d.wakeLocked()
	return n
}

func (d *direction) write(b []byte) (written int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(b) > 0 {
		now := time.Now()
		switch room := streamWindow - d.size; {
		case d.over:
			return written, net.ErrClosed
		case d.gone:
			return written, syscall.EPIPE
		case !d.writeBy.IsZero() && !d.writeBy.After(now):
			return written, os.ErrDeadlineExceeded
		case room <= 0:
			d.waitLocked(d.writeBy)
		default:
			n := min(room, len(b))
			d.segments = append(d.segments, segment{append([]byte(nil), b[:n]...), now.Add(d.delay)})
			d.size += n
			written, b = written+n, b[n:]
			d.wakeLocked()
		}
	}
	return written, nil
}
