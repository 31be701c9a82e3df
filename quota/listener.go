package quota

import (
	"context"
	"net"
	"sync"

	"github.com/quic-go/quic-go"
)

// quicListener is implemented by [quic.Listener], [quic.EarlyListener] and [Listener]. It is
// what the method ServeListener of an http3.Server takes.
type quicListener interface {
	Accept(context.Context) (*quic.Conn, error)
	Addr() net.Addr
	Close() error
}

// Listener accepts the connections that are within the quota, and tells the controller when
// their handshakes are complete. Make one with [Transport.Listen] or
// [Transport.ListenEarly]. All methods may be called concurrently.
type Listener struct {
	c        *Controller
	inner    quicListener
	start    sync.Once
	running  sync.WaitGroup
	admitted chan *quic.Conn
	stopped  chan struct{} // closed when inner.Accept has failed
	err      error         // of inner.Accept; set before stopped is closed
}

var _ quicListener = (*Listener)(nil)

// newListener returns a listener that accepts the connections of l, which listens on a
// transport of the controller. Closing it closes l.
func newListener(c *Controller, l quicListener) *Listener {
	return &Listener{c: c, inner: l, admitted: make(chan *quic.Conn), stopped: make(chan struct{})}
}

// Accept returns the next connection that has room in the quota. It closes those that
// have none, with [Config].ErrorCode.
//
// A listener of [Transport.ListenEarly] returns connections that are held to no limit before
// their handshake is complete. Others are returned afterwards, so that 0-RTT data waits for
// the handshake: only a complete handshake validates the address, which a token does not,
// and only then is it certain that there is room.
//
// When the listener or its transport is closed, this and all later calls return the error
// that says so: [quic.ErrServerClosed] or [quic.ErrTransportClosed].
func (l *Listener) Accept(ctx context.Context) (*quic.Conn, error) {
	l.begin()
	select {
	case conn := <-l.admitted:
		return conn, nil
	case <-l.stopped:
		return nil, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// begin starts collect, once.
func (l *Listener) begin() { l.start.Do(func() { l.running.Go(l.collect) }) }

// collect accepts connections from the listener below, until that fails.
func (l *Listener) collect() {
	for {
		conn, err := l.inner.Accept(context.Background())
		if err != nil {
			l.err = err
			close(l.stopped)
			return
		}
		l.running.Go(func() { l.handOver(conn) })
	}
}

// handOver passes a connection to Accept, if there is room for it.
func (l *Listener) handOver(conn *quic.Conn) {
	if slot := SlotOf(conn.Context()); slot != nil && !l.admit(conn, slot) {
		return
	}
	select {
	case l.admitted <- conn:
	case <-conn.Context().Done():
	case <-l.stopped:
		dismiss(conn)
	}
}

// dismiss closes a connection that nobody accepts.
func dismiss(conn *quic.Conn) { _ = conn.CloseWithError(0, "not accepted") }

// admit has a connection closed when its slot is ended, and reports whether there is
// room for it. It returns as soon as that is certain.
func (l *Listener) admit(conn *quic.Conn, slot *Slot) bool {
	slot.OnEnd(func() { l.closeConn(conn) })
	if slot.certain() {
		go l.establish(conn, slot, nil) // not stopped by Close: it may have been accepted
		return true
	}
	return l.establish(conn, slot, l.stopped)
}

// establish waits until the handshake is complete, and reports whether there is room
// for the connection. It closes the connection if there is none, or if stopped is closed
// first.
func (l *Listener) establish(conn *quic.Conn, slot *Slot, stopped <-chan struct{}) bool {
	select {
	case <-conn.HandshakeComplete():
	case <-conn.Context().Done():
		return false
	case <-stopped:
		dismiss(conn)
		return false
	}
	slot.peer.Follow(conn)
	if slot.Established() {
		return true
	}
	l.closeConn(conn)
	return false
}

// closeConn closes a connection whose slot was ended.
func (l *Listener) closeConn(conn *quic.Conn) {
	_ = conn.CloseWithError(l.c.conf.ErrorCode, "over quota")
}

// Close closes the listener, and the connections that have not been accepted yet. It waits
// until all of them are closed. Accepted connections stay open.
func (l *Listener) Close() error {
	err := l.inner.Close()
	l.begin() // even if nobody has called Accept: quic-go leaves open what waits in its queue
	l.running.Wait()
	return err
}

// Addr returns the local address.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }
