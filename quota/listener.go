package quota

import (
	"context"
	"net"
	"sync"

	"github.com/quic-go/quic-go"
)

// QUICListener is implemented by [quic.Listener], [quic.EarlyListener] and [Listener].
// It is what http3.Server.ServeListener takes.
type QUICListener interface {
	Accept(context.Context) (*quic.Conn, error)
	Addr() net.Addr
	Close() error
}

// Listener accepts the connections that are within the quota, and tells the
// controller when their handshakes are complete. Make one with [Controller.Listener].
type Listener struct {
	c        *Controller
	inner    QUICListener
	start    sync.Once
	running  sync.WaitGroup
	admitted chan *quic.Conn
	stopped  chan struct{} // closed when inner.Accept has failed
	err      error         // of inner.Accept; set before stopped is closed
}

var _ QUICListener = (*Listener)(nil)

// Listener returns a listener that accepts the connections of l, which listens on a
// protected transport. Closing it closes l.
func (c *Controller) Listener(l QUICListener) *Listener {
	c.admission.listens.Store(true)
	return &Listener{c: c, inner: l, admitted: make(chan *quic.Conn), stopped: make(chan struct{})}
}

// Accept returns the next connection that has room in the quota. It closes those that
// have none, with [Config].ErrorCode.
//
// If the listener below is an early one, connections that are held to no limit are
// returned before their handshake is complete. Others are returned afterwards, so that
// 0-RTT data waits for the handshake: only a complete handshake validates the address,
// which a token does not, and only then is it certain that there is room.
//
// When the Accept of the listener below fails, this and all later calls return its error.
func (l *Listener) Accept(ctx context.Context) (*quic.Conn, error) {
	l.start.Do(func() { l.running.Go(l.collect) })
	select {
	case conn := <-l.admitted:
		return conn, nil
	case <-l.stopped:
		return nil, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

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

// Close closes the listener below, and the connections that have not been accepted
// yet. It waits until all of them are closed.
func (l *Listener) Close() error {
	err := l.inner.Close()
	l.running.Wait()
	return err
}

// Addr returns the address of the listener below.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }
