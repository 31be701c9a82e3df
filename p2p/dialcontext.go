package p2p

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"
)

// Timing of connections that calls of DialContext share.
const (
	// dialedIdle is how long such a connection stays open without net.Conns.
	dialedIdle = time.Minute
	// heardLately is how long ago the peer must have been heard for its connection to be
	// used without a question.
	heardLately = 5 * time.Second
	// answerPatience is how long the peer may take to answer it. A connection that changes
	// its path or its relay is silent for less.
	answerPatience = 3 * time.Second
)

// DialContext opens a stream to the listener of a peer ([Endpoint.Listener]) and returns it as
// a [*StreamConn]. It fits [http.Transport.DialContext], database drivers, and other users
// of a function like [net.Dialer.DialContext]. address is a [PeerID], alone or with a port,
// which is ignored. network is "quicway" or "tcp".
//
// All StreamConns to a peer share one connection. The first call dials it as [Endpoint.Dial]
// does, with the offer in the relay's mailbox, and calls at the same time wait for the same
// attempt, which goes on while any of them does. The connection is closed a minute after its
// last StreamConn. If it has ended, or the peer does not answer on it, or has refused a
// stream, another one is dialed; StreamConns of the old one are not moved. Connections from
// [Endpoint.Dial] or [Endpoint.Accept] are not used.
//
// DialContext returns before the peer has accepted the stream, and the stream can be accepted
// at once, also by a server that speaks first. If the peer does not allow more streams at
// the moment, 100 by default, DialContext waits until one is closed, or ctx is done. Errors
// are a [*net.OpError], and wrap ErrMalformedPeerID, ctx's error, what Dial returns, or what
// errors of a StreamConn wrap.
func (e *Endpoint) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	peer, err := dialedPeer(network, address)
	if err == nil {
		var s *StreamConn
		if s, err = e.dialed.open(ctx, peer); err == nil {
			return s, nil
		}
	}
	return nil, &net.OpError{Op: "dial", Net: networkName, Addr: PeerAddr{ID: peer}, Err: err}
}

// dialedPeer reads the arguments of DialContext.
func dialedPeer(network, address string) (PeerID, error) {
	if err := checkNetwork(network); err != nil {
		return PeerID{}, err
	}
	host, _, _ := strings.Cut(address, ":")
	return ParsePeerID(host)
}

// dialedConns are the connections that calls of DialContext share.
type dialedConns struct {
	endpoint *Endpoint

	mu    sync.Mutex // guards the following, and what it holds
	peers map[PeerID]*dialedConn
}

// dialedConn is a connection to a peer, or an attempt to dial it.
type dialedConn struct {
	cancel  context.CancelFunc // ends the attempt
	waiting int                // calls that wait for the attempt, guarded by dialedConns.mu

	done chan struct{} // closed when the following are set
	conn *sharedConn
	err  error
}

func newDialedConns(e *Endpoint) dialedConns {
	return dialedConns{endpoint: e, peers: make(map[PeerID]*dialedConn)}
}

// open opens a stream to a peer, on the connection that there is, or on a new one.
func (d *dialedConns) open(ctx context.Context, peer PeerID) (*StreamConn, error) {
	for {
		c, fresh, err := d.find(peer)
		if err == nil {
			err = d.wait(ctx, peer, c)
		}
		if err != nil {
			return nil, err
		}
		s, err := c.open(ctx, fresh)
		switch {
		case err == nil:
			s.refused = func() { d.forget(peer, c) } // its listener is closed; there may be another
			return s, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case fresh || err != errUnanswered && c.conn.Context().Err() == nil:
			return nil, err
		}
		d.forget(peer, c)
	}
}

// errUnanswered: the peer does not answer on a connection, or it is about to be closed.
var errUnanswered = errors.New("the peer does not answer")

// open opens a stream. A connection that is not fresh must answer.
func (c *dialedConn) open(ctx context.Context, fresh bool) (*StreamConn, error) {
	if !fresh && !c.conn.answers(ctx) || !c.conn.use() {
		if c.conn.Context().Err() != nil {
			return nil, c.conn.lost(context.Cause(c.conn.Context()))
		}
		return nil, errUnanswered
	}
	s, err := c.conn.openConn(ctx, c.conn.release)
	if err != nil {
		c.conn.release()
	}
	return s, err
}

// find returns the connection to a peer, or the attempt to dial it, and adds the caller to
// those that wait. fresh says that it was not there before, or is not complete yet.
func (d *dialedConns) find(peer PeerID) (_ *dialedConn, fresh bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.peers[peer]
	if c == nil {
		if err := d.endpoint.enter(); err != nil {
			return nil, false, err
		}
		ctx, cancel := context.WithCancel(context.Background())
		c = &dialedConn{cancel: cancel, done: make(chan struct{})}
		d.peers[peer] = c
		go d.dial(ctx, peer, c)
	}
	c.waiting++
	return c, c.conn == nil, nil
}

// dial dials a peer. The caller has entered the endpoint.
func (d *dialedConns) dial(ctx context.Context, peer PeerID, c *dialedConn) {
	defer d.endpoint.tasks.Done()
	defer c.cancel()
	conn, err := d.endpoint.Dial(ctx, peer, nil)
	d.mu.Lock()
	defer d.mu.Unlock()
	defer close(c.done)
	switch {
	case err != nil:
		c.err = err
		d.forgetLocked(peer, c)
	case d.peers[peer] != c: // all callers have left
		c.err = context.Canceled
		_ = conn.CloseWithError(0, "not in use")
	default:
		c.conn = newSharedConn(conn, func() { d.forget(peer, c) })
		c.conn.closeAfter(dialedIdle)
		context.AfterFunc(conn.Context(), func() { d.forget(peer, c) })
	}
}

// wait waits until an attempt is over. If all callers have left, it ends.
func (d *dialedConns) wait(ctx context.Context, peer PeerID, c *dialedConn) error {
	select {
	case <-c.done:
	case <-ctx.Done():
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c.waiting--
	if c.conn != nil || c.err != nil {
		return c.err
	}
	if c.waiting == 0 {
		c.cancel()
		d.forgetLocked(peer, c)
	}
	return context.Cause(ctx)
}

// forget has the next call dial again.
func (d *dialedConns) forget(peer PeerID, c *dialedConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forgetLocked(peer, c)
}

func (d *dialedConns) forgetLocked(peer PeerID, c *dialedConn) {
	if d.peers[peer] == c {
		delete(d.peers, peer)
	}
}

// answers says whether the peer answers on the connection: it may have been started anew, and
// know nothing of it.
func (c *sharedConn) answers(ctx context.Context) bool {
	began := time.Now()
	if c.link.heardSince(began.Add(-heardLately)) {
		return true
	}
	asked := c.ask(began)
	for time.Since(began) < answerPatience && ctx.Err() == nil && c.Context().Err() == nil {
		sleep(ctx, 5*time.Millisecond)
		if c.link.heardSince(asked) {
			return true
		}
	}
	return false
}

// ask has the peer answer, unless it has been asked a moment ago, and returns when it was.
// Many calls must not fill the outbox.
func (c *sharedConn) ask(now time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.asked) >= time.Second {
		c.asked = now
		c.queueFrame(frame{kind: frameKeepAlive})
	}
	return c.asked
}
