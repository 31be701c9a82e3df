package quota

import (
	"context"
	"net"

	"github.com/quic-go/quic-go"
)

// QUICListener is a [quic.Listener], a [quic.EarlyListener], or a [Listener], as
// http3.Server.ServeListener takes it.
type QUICListener interface {
	Accept(context.Context) (*quic.Conn, error)
	Addr() net.Addr
	Close() error
}

// Listener accepts connections, and tells the controller when their handshakes are
// complete.
type Listener struct {
	c     *Controller
	inner QUICListener
}

var _ QUICListener = (*Listener)(nil)

// Listener returns a listener that accepts what another one accepts, of a
// transport that is protected.
func (c *Controller) Listener(l QUICListener) *Listener { return &Listener{c, l} }

// Accept returns the next connection. Those of an early listener may not have
// completed their handshakes; they are closed, with [Config.ErrorCode], if there
// is no room for them when they have.
func (l *Listener) Accept(ctx context.Context) (*quic.Conn, error) {
	for {
		conn, err := l.inner.Accept(ctx)
		if err != nil {
			return nil, err
		}
		if l.admit(conn) {
			return conn, nil
		}
	}
}

// admit ties a connection to its slot.
func (l *Listener) admit(conn *quic.Conn) bool {
	slot := SlotOf(conn.Context())
	if slot == nil {
		return true
	}
	end := func() { l.c.closeConn(conn) }
	select {
	case <-conn.HandshakeComplete():
		if !slot.Established() {
			end()
			return false
		}
	default:
		go func() {
			select {
			case <-conn.HandshakeComplete():
				if !slot.Established() {
					end()
				}
			case <-conn.Context().Done():
			}
		}()
	}
	slot.OnEnd(end)
	return true
}

// closeConn ends a connection that has no slot any more.
func (c *Controller) closeConn(conn *quic.Conn) {
	_ = conn.CloseWithError(c.conf.ErrorCode, "over quota")
}

// Close closes the listener below.
func (l *Listener) Close() error { return l.inner.Close() }

// Addr returns its address.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }
