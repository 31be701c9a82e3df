package p2p

import (
	"context"
	"net"

	"github.com/quic-go/quic-go"
)

// connListener is a net.Listener for the streams of one connection.
type connListener struct {
	conn   *Conn
	ctx    context.Context
	cancel context.CancelFunc
}

// Listener returns a [net.Listener] for the streams that the peer opens with DialContext,
// whichever side has dialed the connection. Accept returns a [*StreamConn], or the reason when
// the connection has ended: a [*net.OpError] as from a StreamConn. Closing the listener
// refuses no streams, and leaves the connection and its StreamConns open: it is the caller's
// to close the connection. Use either listeners or AcceptStream of a connection.
func (c *Conn) Listener() net.Listener {
	ctx, cancel := context.WithCancel(context.Background())
	return &connListener{c, ctx, cancel}
}

func (l *connListener) Accept() (net.Conn, error) {
	var stream *quic.Stream
	err := l.ctx.Err() // AcceptStream looks at the context only if no stream waits
	if err == nil {
		stream, err = l.conn.AcceptStream(l.ctx)
	}
	switch {
	case err == nil:
		return l.conn.acceptedConn(stream, func() {}), nil
	case l.ctx.Err() != nil:
		err = net.ErrClosed
	default:
		err = l.conn.lost(err)
	}
	return nil, &net.OpError{Op: "accept", Net: networkName, Addr: l.Addr(), Err: err}
}

// Close has Accept return net.ErrClosed.
func (l *connListener) Close() error {
	l.cancel()
	return nil
}

// Addr returns a PeerAddr with the ID of this endpoint.
func (l *connListener) Addr() net.Addr { return l.conn.endpoint.netAddr() }

// netAddr is the address of an endpoint's listeners.
func (e *Endpoint) netAddr() PeerAddr { return PeerAddr{ID: e.ID()} }

// acceptedConn returns a stream that the peer has opened for a listener. ended is called when
// it has been closed.
func (c *Conn) acceptedConn(stream *quic.Stream, ended func()) *StreamConn {
	s := c.NetConn(stream)
	s.preface, s.ended = new(preface), ended
	return s
}
