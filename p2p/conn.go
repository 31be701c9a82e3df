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

// Application error codes with which this package itself closes a connection. The
// application should use others.
const (
	// CodeHandshake: the handshake failed after TLS. The connection was never handed to
	// the application.
	CodeHandshake quic.ApplicationErrorCode = 0x71776179_01
	// CodePeerGone: the relay says that the peer is gone, and nothing comes from it.
	CodePeerGone quic.ApplicationErrorCode = 0x71776179_02
	// CodeNoDirectPath: there is no direct path, and the policy of one side is
	// DirectOnly.
	CodeNoDirectPath quic.ApplicationErrorCode = 0x71776179_03
)

// Timing of a connection's end.
const (
	// closeLinger is how long a closed connection still answers late packets with
	// CONNECTION_CLOSE (RFC 9000 §10.2).
	closeLinger = time.Second
	// goneGrace is how long a peer that the relay reports as gone may take to send
	// something.
	goneGrace = 3 * time.Second
	// lastPackets is how long packets may be under way that a peer sent before it was
	// gone.
	lastPackets = time.Second
)

// Conn is a connection between two peers. It is one QUIC connection, which may migrate
// between the relay and direct paths. Its methods may be called concurrently.
//
// The package itself uses the first bidirectional stream. The application opens and
// accepts the following ones.
type Conn struct {
	*quic.Conn

	endpoint *Endpoint
	sole     atomic.Bool // the endpoint is closed when the connection ends
	link     *link
	signal   *signal
	outbox   chan frame // frames for the peer
	remote   PeerID
	paths    pathLog
	finder   *pathfinder
	began    time.Time

	keepAlive   atomic.Int64 // in nanoseconds: as configured, or less
	relayLost   atomic.Bool  // one of relayFaults is set
	relayFaults relayFaults
	counters    pathCounters
	background  sync.WaitGroup // migrations under way

	cleaned chan struct{} // closed when nothing of the connection is left
	gone    chan struct{} // holds a token when the relay has reported that the peer is gone
}

// newConn makes a connection of a QUIC connection whose handshake is complete.
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
		counters: pathCounters{endpoint: &e.counters},
		cleaned:  make(chan struct{}),
		gone:     make(chan struct{}, 1),
	}
	first := Path{Local: l.observed(), Relay: l.relayName(), Since: time.Now(), Why: WhyEstablished}
	if first.Kind, first.Remote = l.place(); first.Kind == Tunneled {
		first.Why = WhyUDPBlocked
	}
	c.paths.init(first, &e.counters.events)
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

// awaitPolicy returns the connection when it may be handed to the application: with
// DirectOnly, when it has a direct path.
func (c *Conn) awaitPolicy(ctx context.Context) (*Conn, error) {
	if c.endpoint.conf.Policy != DirectOnly {
		return c, nil
	}
	var tried []PairResult
	for p := range c.PathEvents(ctx) {
		if p.Kind.isDirect() {
			return c, nil
		}
		if p.Tried != nil {
			tried = p.Tried
		}
	}
	_ = c.CloseWithError(CodeNoDirectPath, ErrNoDirectPath.Error())
	return nil, fmt.Errorf("%w: tried %v", c.Err(), tried)
}

// RemoteID returns the ID of the peer. It is the zero PeerID if [Config.TLS] lets peers
// connect without a certificate.
func (c *Conn) RemoteID() PeerID { return c.remote }

// Err returns why the connection has ended, or nil if it has not. It wraps ErrPeerGone,
// ErrPeerRefused, ErrNoDirectPath or ErrNoPath if that is the reason. Otherwise it is
// quic-go's error.
func (c *Conn) Err() error {
	if c.Context().Err() == nil {
		return nil
	}
	return c.explain(context.Cause(c.Context()))
}

// explain returns why the connection has ended, if err is what quic-go says.
func (c *Conn) explain(err error) error {
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

// run serves the connection until it ends, and then cleans up.
func (c *Conn) run() {
	defer close(c.cleaned)
	var parts sync.WaitGroup
	parts.Go(c.readFrames)
	parts.Go(c.writeFrames)
	parts.Go(c.finder.run)
	c.watch()
	parts.Wait()
	c.background.Wait()
	c.finder.failover.stop()
	c.clean()
}

// readFrames reads the peer's frames. It skips types that it does not know.
func (c *Conn) readFrames() {
	if c.signal.greeted != nil {
		<-c.signal.greeted
	}
	for {
		f, err := c.signal.read()
		if err != nil {
			if errors.Is(err, errSignal) {
				_ = c.CloseWithError(CodeHandshake, err.Error())
			}
			return
		}
		if f.kind >= frameAddAddress {
			c.finder.receiveFrame(f)
		}
	}
}

// outboxSize is the number of frames that wait while quic-go cannot send. Further ones
// are dropped. There are far fewer before the idle timeout ends a connection without a
// path.
const outboxSize = 128

// queueFrame has a frame sent to the peer. It does not block. The stream's Write may
// block until there is a path again, and the caller is the one that looks for it.
func (c *Conn) queueFrame(f frame) {
	select {
	case c.outbox <- f:
	default:
	}
}

// writeFrames sends the queued frames.
func (c *Conn) writeFrames() {
	for {
		select {
		case <-c.Context().Done():
			return
		case f := <-c.outbox:
			_ = c.signal.write(f)
		}
	}
}

// observed is called when the relay sees another address of this host.
func (c *Conn) observed(addr netip.AddrPort) {
	if !c.paths.kind().isDirect() {
		c.paths.change(func(p *Path) {
			was := p.Kind
			p.Kind, p.Remote = c.link.place()
			p.Local, p.Why = addr, whyObserved(was, p.Kind)
		})
	}
	notify(c.finder.changed)
}

// whyObserved returns why the relay sees another address of this host.
func whyObserved(was, is PathKind) PathReason {
	switch {
	case was == is:
		return WhyAddressChanged
	case is == Tunneled:
		return WhyUDPBlocked
	}
	return WhyUDPBack
}

// relayAnswers is called when the relay begins or ceases to answer this endpoint.
func (c *Conn) relayAnswers(yes bool) { c.setRelayFault(&c.relayFaults.unanswering, !yes) }

// relayForwards is called when the relay begins or ceases to forward packets.
func (c *Conn) relayForwards(yes bool) { c.setRelayFault(&c.relayFaults.notForwarding, !yes) }

// relayFaults are the faults of a relay. A relay with one of them is lost.
type relayFaults struct {
	mu            sync.Mutex // guards the following
	unanswering   bool
	notForwarding bool
}

// setRelayFault sets one of relayFaults, and reports it unless there is a direct path.
func (c *Conn) setRelayFault(fault *bool, is bool) {
	f := &c.relayFaults
	f.mu.Lock()
	defer f.mu.Unlock()
	*fault = is
	lost, why := f.unanswering || f.notForwarding, WhyRelayBack
	switch {
	case lost:
		why = WhyRelayLost
	case c.link.leg().client.tunneled():
		why = WhyUDPBlocked
	}
	if c.relayLost.Swap(lost) == lost {
		return
	}
	if !c.paths.kind().isDirect() {
		c.paths.change(func(p *Path) {
			p.Kind, p.Remote = c.link.place()
			p.Why = why
		})
	}
	notify(c.finder.changed)
}

// relayTurned is called when packets go through another relay. unanswering says that it
// does not answer this endpoint.
func (c *Conn) relayTurned(unanswering bool) {
	f := &c.relayFaults
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unanswering, f.notForwarding = unanswering, false
	c.relayLost.Store(unanswering)
}

// watch keeps the connection alive until it ends, or the endpoint does.
func (c *Conn) watch() {
	var reported time.Time // when the relay reported that the peer is gone
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
				reported, ask, expired = time.Now(), time.After(lastPackets), time.After(goneGrace)
			}
		case <-ask:
			// A peer that has only lost the relay acknowledges this.
			ask = nil
			c.queueFrame(frame{kind: frameKeepAlive})
		case <-expired:
			expired = nil
			if !c.link.heardSince(reported.Add(lastPackets)) {
				_ = c.CloseWithError(CodePeerGone, ErrPeerGone.Error())
			}
		case now := <-keepAlive.C:
			c.sampleRTT()
			wait := c.keepAliveIn(now)
			if wait <= 0 {
				c.queueFrame(frame{kind: frameKeepAlive})
				wait = time.Duration(c.keepAlive.Load())
			}
			keepAlive.Reset(wait)
		}
	}
}

// keepAliveIn is how much longer the connection may be silent until a keepalive is due.
func (c *Conn) keepAliveIn(now time.Time) time.Duration {
	k := time.Duration(c.keepAlive.Load())
	if k <= 0 {
		return 1000 * time.Hour // never
	}
	return k - c.link.idle(now)
}

// clean releases what the connection has used.
func (c *Conn) clean() {
	e := c.endpoint
	e.log.Info("connection ended", "peer", c.remote, "err", c.Err())
	c.sampleRTT()
	e.counters.ended[endingOf(c.Err())].Add(1)
	c.paths.close()
	e.endLink(c.link)
	sleep(e.ctx, closeLinger)
	e.discard(c.link)
	e.remove(c)
	if c.sole.Load() {
		go e.Close() // which waits for this goroutine
	}
}

// peerGone is called when the relay reports that the peer is gone.
func (c *Conn) peerGone() {
	select {
	case c.gone <- struct{}{}:
	default:
	}
}

// soleConn has an endpoint closed when its only connection ends, or if there is none.
func soleConn(e *Endpoint, c *Conn, err error) (*Conn, error) {
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	c.sole.Store(true)
	return c, nil
}
