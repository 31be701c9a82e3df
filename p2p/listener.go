package p2p

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// Bounds of the connections of a listener.
const (
	maxListened     = 1024 // in all
	maxListenedPeer = 16   // of one peer
)

// listenedIdle is how long a connection stays open without net.Conns when its listener has
// been closed.
const listenedIdle = 10 * time.Second

// Listener returns a [net.Listener] for the streams that peers open with DialContext. It
// accepts connections as [Endpoint.Accept] does, until it is closed. Meanwhile Accept returns
// ErrListening, and so do, for good, further listeners made in that time. Connections of
// AcceptOffer and Dial have listeners of their own: [Conn.Listener].
//
// Accept of the listener returns a [*StreamConn], the streams of different connections in
// turn. What a peer has not sent yet delays no other: the stream's first Read waits for it.
// Up to 100 streams of a connection wait for Accept (MaxIncomingStreams of [Config.QUIC]).
// There are at most 1024 connections at a time, and 16 of a peer; those of peers without a
// certificate count only in all. If there are more, the one that has been longest without
// StreamConns is closed, and without such a one the new one is. If the relay cannot be used,
// Accept returns a [*net.OpError] that wraps what [Endpoint.Accept] returns. It is temporary
// if another try may help, as when the relay does not answer yet: [http.Server] and gRPC try
// again then.
//
// Closing the listener refuses streams that wait, with CodeStreamRefused, and leaves
// StreamConns open. Their connections are closed ten seconds after their last StreamConn, also
// if the peer has not read all by then. Closing the endpoint closes the listener and all of
// them. Accept returns net.ErrClosed then.
func (e *Endpoint) Listener() net.Listener {
	ctx, cancel := context.WithCancel(e.ctx)
	l := &listener{
		endpoint: e,
		ctx:      ctx,
		cancel:   cancel,
		streams:  make(chan *StreamConn),
		failures: make(chan error),
		conns:    make(map[*sharedConn]struct{}),
		over:     make(chan struct{}),
	}
	if err := e.enter(); err != nil {
		close(l.over)
		return l
	}
	run := l.run
	if !e.mailbox.listen() {
		run = l.refuse
	}
	go func() {
		defer e.tasks.Done()
		defer close(l.over)
		run()
	}()
	return l
}

// listener is a net.Listener for the streams of all connections that an endpoint accepts.
type listener struct {
	endpoint *Endpoint
	ctx      context.Context // done when Close begins
	cancel   context.CancelFunc
	streams  chan *StreamConn // that wait for Accept; each connection offers one at a time
	failures chan error
	over     chan struct{} // closed when no more connections are accepted

	mu    sync.Mutex // guards the following
	conns map[*sharedConn]struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	var err error
	select {
	case <-l.ctx.Done():
		err = l.closed()
	default:
		select {
		case s := <-l.streams:
			return s, nil
		case err = <-l.failures:
		case <-l.ctx.Done():
			err = l.closed()
		}
	}
	return nil, &net.OpError{Op: "accept", Net: networkName, Addr: l.Addr(), Err: err}
}

// closed returns why the listener accepts nothing more.
func (l *listener) closed() error {
	if l.endpoint.ctx.Err() != nil {
		return ErrClosed
	}
	return net.ErrClosed
}

// Close returns when [Endpoint.Accept] may be used again.
func (l *listener) Close() error {
	l.cancel()
	<-l.over
	return nil
}

// Addr returns a PeerAddr with the ID of the endpoint.
func (l *listener) Addr() net.Addr { return l.endpoint.netAddr() }

// run accepts connections until the listener is closed.
func (l *listener) run() {
	defer l.endpoint.mailbox.unlisten()
	for l.ctx.Err() == nil {
		c, err := l.endpoint.accept(l.ctx, true)
		if err == nil {
			l.serve(c)
		} else {
			l.fail(err)
		}
	}
}

// refuse is run if another listener takes the connections.
func (l *listener) refuse() {
	for l.ctx.Err() == nil {
		l.fail(ErrListening)
	}
}

// fail gives an error to a call of Accept.
func (l *listener) fail(err error) {
	if isTemporary(err) {
		err = temporaryError{err}
	}
	select {
	case l.failures <- err:
	case <-l.ctx.Done():
	}
}

// isTemporary says whether Accept may work again although it has failed.
func isTemporary(err error) bool {
	return errors.Is(err, ErrRelayUnreachable) || errors.Is(err, ErrIdentityInUse) ||
		errors.Is(err, ErrRelayRefused) && !errors.Is(err, ErrUnauthorized)
}

// temporaryError is an error after which servers such as http.Server try again.
type temporaryError struct{ error }

func (e temporaryError) Unwrap() error   { return e.error }
func (e temporaryError) Timeout() bool   { return false }
func (e temporaryError) Temporary() bool { return true }
