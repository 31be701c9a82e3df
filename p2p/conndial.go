package p2p

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/quic-go/quic-go"
)

// DialContext opens a stream for the peer's listener ([Conn.Listener], [Endpoint.Listener]),
// and returns it as a [*StreamConn]. It fits [http.Transport.DialContext] and the like: all
// connections of that Transport then go to this peer, and address is ignored. network is as
// for [Endpoint.DialContext].
//
// It returns before the peer has accepted the stream. If the peer does not allow more streams
// at the moment, it waits until one is closed, or ctx is done. Errors are a [*net.OpError],
// and wrap what those of a StreamConn wrap, or ctx's error.
func (c *Conn) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	err := checkNetwork(network)
	if err == nil {
		var s *StreamConn
		if s, err = c.openConn(ctx, func() {}); err == nil {
			return s, nil
		}
	}
	return nil, &net.OpError{Op: "dial", Net: networkName, Addr: c.RemoteAddr(), Err: err}
}

// openConn opens a stream for the peer's listener. ended is called when it has been closed.
func (c *Conn) openConn(ctx context.Context, ended func()) (*StreamConn, error) {
	stream, err := c.OpenStreamSync(ctx)
	if err == nil {
		_, err = stream.Write([]byte{prefaceType, 0}) // does not wait: quic-go buffers it
	}
	if err == nil {
		s := c.NetConn(stream)
		s.ended = ended
		return s, nil
	}
	var refused *quic.StreamError // the peer has stopped the stream as soon as it was there
	if errors.As(err, &refused) {
		refuse(stream)
		return nil, fmt.Errorf("%w: %w", syscall.EPIPE, err)
	}
	select { // quic-go fails calls a moment before the context of a connection that ends is done
	case <-c.Context().Done():
		return nil, c.lost(err)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// networkName is the name of the network in addresses and errors.
const networkName = "quicway"

// checkNetwork accepts the names of networks that callers of a function such as
// [net.Dialer.DialContext] give for streams.
func checkNetwork(network string) error {
	switch network {
	case networkName, "tcp", "tcp4", "tcp6":
		return nil
	}
	return net.UnknownNetworkError(network)
}
