package p2p

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// Codes with which this package itself ends a connection. Those of the
// application should differ.
const (
	// CodeHandshake: the connection was not handed to the application.
	CodeHandshake quic.ApplicationErrorCode = 0x71776179_01
	// CodePeerGone: the relay says that the peer is gone, and it is silent.
	CodePeerGone quic.ApplicationErrorCode = 0x71776179_02
	// CodeNoDirectPath: one side wants nothing else (DirectOnly).
	CodeNoDirectPath quic.ApplicationErrorCode = 0x71776179_03
)

// Timing of a connection's end.
const (
	// closeLinger is how long a closed connection still answers late
	// packets with its CONNECTION_CLOSE (RFC 9000 §10.2).
	closeLinger = time.Second
	// goneGrace is how long a peer that the relay calls gone may take to
	// show that it is not.
	goneGrace = 3 * time.Second
	// peerLast is for how long packets that a peer has sent before it was
	// gone may still arrive.
	peerLast = time.Second
)

// Conn is a connection between two peers: one QUIC connection, whatever paths
// it takes. Its methods may be called concurrently.
//
// The first bidirectional stream is the package's own. What the application
// opens and accepts begins with the next.
type Conn struct {
	*quic.Conn

	endpoint *Endpoint
	sole     atomic.Bool // the endpoint ends with the connection
	link     *link
	signal   *signal
	outbox   chan frame // for the peer, once quic-go takes it
	remote   PeerID
	paths    pathLog
	finder   *pathfinder
	began    time.Time

	keepAlive  atomic.Int64 // in nanoseconds: as configured, or less
	relayLost  atomic.Bool
	relayState relayState
	counters   pathCounters
	background sync.WaitGroup // moves that are under way

	tended chan struct{} // closed when nothing of the connection is left
	gone   chan struct{} // holds a token when the relay has said that the peer is gone
}

// newConn makes a connection whose peers have greeted each other.
func (e *Endpoint) newConn(l *link, qc *quic.Conn, s *signal) (*Conn, error) {
	remote, err := peerOf(qc.ConnectionState().TLS)
	if err != nil && e.conf.TLS == nil {
		return nil, err
	}
	c := &Conn{
		Conn:     qc,
		endpoint: e,
		link:     l,
		signal:   s,
		outbox:   make(chan frame, outboxSize),
		remote:   remote,
		began:    time.Now(),
		tended:   make(chan struct{}),
		gone:     make(chan struct{}, 1),
	}
	c.paths.init(Path{
		Kind:   Relayed,
		Local:  l.observed(),
		Remote: l.remote(),
		Since:  time.Now(),
		Why:    WhyEstablished,
	})
	c.keepAlive.Store(int64(e.conf.KeepAlive))
	if c.finder, err = newPathfinder(c); err != nil {
		return nil, err
	}
	l.attach(c)
	if err := e.add(c); err != nil {
		return nil, err
	}
	e.log.Info("connected", "peer", remote, "path", c.Path())
	return c, nil
}

// settled returns the connection when it is as the application wants to have it:
// with DirectOnly, not before it is direct.
func (c *Conn) settled(ctx context.Context) (*Conn, error) {
	if c.endpoint.conf.Policy != DirectOnly {
		return c, nil
	}
	var tried []PairResult
	for p := range c.PathEvents(ctx) {
		if p.Kind != Relayed {
			return c, nil
		}
		if p.Tried != nil {
			tried = p.Tried
		}
	}
	_ = c.CloseWithError(CodeNoDirectPath, ErrNoDirectPath.Error())
	return nil, fmt.Errorf("%w: tried %v", c.Err(), tried)
}

// RemoteID returns who is at the other end. It is the zero PeerID if
// [Config.TLS] lets peers connect without a certificate.
func (c *Conn) RemoteID() PeerID { return c.remote }

// Err returns why the connection has ended, in the terms of this package where
// it has some (ErrPeerGone, ErrPeerRefused), or nil while it lives.
func (c *Conn) Err() error {
	if c.Context().Err() == nil {
		return nil
	}
	err := context.Cause(c.Context())
	var application *quic.ApplicationError
	if errors.As(err, &application) {
		switch application.ErrorCode {
		case CodePeerGone:
			return ErrPeerGone
		case CodeNoDirectPath:
			return ErrNoDirectPath
		case CodeHandshake:
			return errors.Join(ErrPeerRefused, err)
		}
	}
	var idle *quic.IdleTimeoutError
	if errors.As(err, &idle) && c.relayLost.Load() {
		return errors.Join(ErrNoPath, err)
	}
	return err
}

// tend looks after the connection until it ends, and after what it leaves.
func (c *Conn) tend() {
	defer close(c.tended)
	var parts sync.WaitGroup
	parts.Go(c.listen)
	parts.Go(c.speak)
	parts.Go(c.finder.run)
	c.watch()
	parts.Wait()
	c.background.Wait()
	c.clean()
}

// listen reads what the peer says about the connection. Types that are new to us
// are skipped.
func (c *Conn) listen() {
	for {
		f, err := c.signal.read()
		if err != nil {
			if errors.Is(err, errSignal) {
				_ = c.CloseWithError(CodeHandshake, err.Error())
			}
			return
		}
		if f.kind >= frameAddAddress {
			c.finder.heed(f)
		}
	}
}

// outboxSize is how many frames wait while quic-go may not send. Further ones are
// lost, but there are few in the time that a connection lives without a path.
const outboxSize = 128

// tell has a frame sent to the peer. It does not block: a stream's Write may, as long
// as no path carries anything, and a path must be found meanwhile.
func (c *Conn) tell(f frame) {
	select {
	case c.outbox <- f:
	default:
	}
}

// speak sends what the peer is to be told.
func (c *Conn) speak() {
	for {
		select {
		case <-c.Context().Done():
			return
		case f := <-c.outbox:
			_ = c.signal.write(f)
		}
	}
}

// observed is told our address, as the relay sees it.
func (c *Conn) observed(addr netip.AddrPort) {
	if c.paths.kind() == Relayed {
		c.paths.change(func(p *Path) { p.Local, p.Why = addr, WhyAddressChanged })
	}
	poke(c.finder.changed)
}

// relayed is told whether the relay answers us.
func (c *Conn) relayed(why PathReason) { c.judgeRelay(&c.relayState.absent, why == WhyRelayLost) }

// forwards is told whether what goes by the relay arrives.
func (c *Conn) forwards(yes bool) { c.judgeRelay(&c.relayState.idle, !yes) }

// relayState is what a relay may fail to do. It is lost if it does.
type relayState struct {
	mu     sync.Mutex // guards the following
	absent bool       // it does not answer us
	idle   bool       // it does not forward
}

// judgeRelay takes note of one of the two. While there is a direct path that changes
// nothing.
func (c *Conn) judgeRelay(fault *bool, is bool) {
	s := &c.relayState
	s.mu.Lock()
	defer s.mu.Unlock()
	*fault = is
	lost, why := s.absent || s.idle, WhyRelayBack
	if lost {
		why = WhyRelayLost
	}
	if c.relayLost.Swap(lost) == lost {
		return
	}
	if c.paths.kind() == Relayed {
		c.paths.change(func(p *Path) { p.Remote, p.Why = c.link.remote(), why })
	}
	poke(c.finder.changed)
}

// watch keeps the connection alive until it ends, or the endpoint does.
func (c *Conn) watch() {
	var said time.Time // when the relay called the peer gone
	var ask, expired <-chan time.Time
	keepAlive := time.NewTimer(c.keepAliveIn(time.Now()))
	defer keepAlive.Stop()
	for {
		select {
		case <-c.Context().Done():
			return
		case <-c.endpoint.ctx.Done():
			_ = c.CloseWithError(0, "")
			return
		case <-c.gone:
			if expired == nil {
				said, ask, expired = time.Now(), time.After(peerLast), time.After(goneGrace)
			}
		case <-ask:
			// A peer that has only lost the relay answers this.
			ask = nil
			c.tell(frame{kind: frameKeepAlive})
		case <-expired:
			expired = nil
			if !c.link.heardSince(said.Add(peerLast)) {
				_ = c.CloseWithError(CodePeerGone, ErrPeerGone.Error())
			}
		case now := <-keepAlive.C:
			wait := c.keepAliveIn(now)
			if wait <= 0 {
				c.tell(frame{kind: frameKeepAlive})
				wait = time.Duration(c.keepAlive.Load())
			}
			keepAlive.Reset(wait)
		}
	}
}

// keepAliveIn is after how much more silence a keepalive is due.
func (c *Conn) keepAliveIn(now time.Time) time.Duration {
	k := time.Duration(c.keepAlive.Load())
	if k <= 0 {
		return 1000 * time.Hour // never
	}
	return k - c.link.idle(now)
}

// clean gives back what the connection has used.
func (c *Conn) clean() {
	e := c.endpoint
	e.log.Info("connection over", "peer", c.remote, "err", c.Err())
	c.paths.close()
	e.endLink(c.link)
	sleep(e.ctx, closeLinger)
	e.discard(c.link)
	e.remove(c)
	if c.sole.Load() {
		go e.Close() // which waits for us
	}
}

// peerGone is told by the relay.
func (c *Conn) peerGone() {
	select {
	case c.gone <- struct{}{}:
	default:
	}
}

// soleConn ties an endpoint's life to that of its only connection.
func soleConn(e *Endpoint, c *Conn, err error) (*Conn, error) {
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	c.sole.Store(true)
	return c, nil
}
