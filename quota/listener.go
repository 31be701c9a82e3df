package quota

import (
	"context"
	"net"
	"sync"

	"github.com/quic-go/quic-go"
)

// QUICListener is a [quic.Listener], a [quic.EarlyListener], or a [Listener], as
// http3.Server.ServeListener takes it.
type QUICListener interface {
	Accept(context.Context) (*quic.Conn, error)
	Addr() net.Addr
	Close() error
}

// Listener accepts the connections that are within the quota, and tells the
// controller when their handshakes are complete.
type Listener struct {
	c        *Controller
	inner    QUICListener
	start    sync.Once
	running  sync.WaitGroup
	admitted chan *quic.Conn
	stopped  chan struct{} // closed when inner accepts no more
	err      error         // of inner, then
}

var _ QUICListener = (*Listener)(nil)

// Listener returns a listener that accepts what another one accepts, of a
// transport that is protected. Closing it closes the other one.
func (c *Controller) Listener(l QUICListener) *Listener {
	c.listens.Store(true)
	return &Listener{c: c, inner: l, admitted: make(chan *quic.Conn), stopped: make(chan struct{})}
}

// Accept returns the next connection that may live. Those of an early listener may
// not have completed their handshakes if they are held to no limit. Others are
// accepted when they have, since only that shows their addresses, which a token does
// not, and makes it certain that there is room for them: what they send in 0-RTT waits
// for that. Where there is none they are closed, with
// [Config.ErrorCode]. An error of the listener below is its last word.
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

// collect takes what the listener below accepts, until it does not any more.
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

// handOver gives a connection to whoever accepts, if it may live.
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

// dismiss closes a connection that nobody is there to accept.
func dismiss(conn *quic.Conn) { _ = conn.CloseWithError(0, "not accepted") }

// admit ties a connection to its slot, and says, once that is certain, whether it
// may live.
func (l *Listener) admit(conn *quic.Conn, slot *Slot) bool {
	slot.OnEnd(func() { l.c.closeConn(conn) })
	if slot.certain() {
		go l.establish(conn, slot, nil) // it may be accepted, and outlive the listener
		return true
	}
	return l.establish(conn, slot, l.stopped)
}

// establish waits for the handshake, and for what becomes of the slot then. A
// connection that has not got so far when stopped is closed goes.
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
	l.c.closeConn(conn)
	return false
}

// closeConn ends a connection that has no slot any more.
func (c *Controller) closeConn(conn *quic.Conn) {
	_ = conn.CloseWithError(c.conf.ErrorCode, "over quota")
}

// Close closes the listener below, and the connections that nobody has accepted
// yet.
func (l *Listener) Close() error {
	err := l.inner.Close()
	l.running.Wait()
	return err
}

// Addr returns its address.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }
