package p2p

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/control"
)

// Bounds of what an offer's maker may ask of us, who chooses when it expires.
const (
	// answerTimeout is how long a handshake may take: the dialer is there.
	answerTimeout = time.Minute
	// maxOfferLife is how far off an offer's expiry may be.
	maxOfferLife = 24 * time.Hour
	// clockSkew is by how much the clocks of two peers may differ.
	clockSkew = 5 * time.Minute
)

// joinPatience is how long an accepter waits for a relay, which has been
// restarted, to be told of the session again by the dialer.
const joinPatience = 5 * time.Second

// helloPatience is how long an accepter waits for the dialer's next packet, which
// is there, during the handshake.
const helloPatience = 10 * time.Second

// AcceptOffer answers an offer, which has come by any way, and returns the
// connection. It uses the relay that the offer names. Errors wrap ErrOffer,
// ErrOfferExpired, ErrOfferUsed, ErrPeerMismatch, ErrPeerRefused, ErrPeerGone,
// ErrNoDirectPath, ErrRelayUnreachable, ErrRelayNotAllowed ([Config.OfferRelays]),
// ErrRelayMismatch, ErrRelayRefused, ErrNotForwarded, ErrClosed or ctx's error.
func (e *Endpoint) AcceptOffer(ctx context.Context, offer Offer) (*Conn, error) {
	conn, err := e.acceptOffer(ctx, offer)
	if err == nil {
		conn, err = conn.awaitPolicy(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("p2p: accept offer: %w", err)
	}
	return conn, nil
}

// Accept is [Endpoint.AcceptOffer] on an endpoint of its own over conn, which
// both end with the connection.
func Accept(ctx context.Context, conn net.PacketConn, offer Offer, cfg *Config) (*Conn, error) {
	e, err := NewEndpoint(cfg, conn)
	if err != nil {
		return nil, err
	}
	c, err := e.AcceptOffer(ctx, offer)
	return soleConn(e, c, err)
}

func (e *Endpoint) acceptOffer(ctx context.Context, o Offer) (_ *Conn, err error) {
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.tasks.Done()
	if len(o.flight) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrOffer)
	}
	if err := o.inTime(time.Now()); err != nil {
		return nil, err
	}
	if err := e.judge(o.dialer, o.dialer); err != nil {
		return nil, err
	}
	if err := e.claim(&o); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, ErrOfferExpired)
	defer cancel()
	ctx, stop := e.bound(ctx)
	defer stop(nil)
	l, err := e.join(ctx, &o)
	if err != nil {
		e.unclaim(&o)
		return nil, err
	}
	defer func() {
		if err != nil {
			e.discard(l)
		}
	}()
	conn, err := e.respond(ctx, l, &o)
	return conn, l.explain(err)
}

// inTime judges an offer by this host's clock, which the dialer's may differ from. The
// relay, by its own clock, has the last word: it does not take an old join token.
func (o *Offer) inTime(now time.Time) error {
	switch left := o.expires.Sub(now); {
	case left <= -clockSkew:
		return fmt.Errorf("%w %v ago by this host's clock", ErrOfferExpired, -left.Round(time.Second))
	case left > maxOfferLife+clockSkew:
		return fmt.Errorf("%w: it would be good for %v by this host's clock", ErrOffer, left.Round(time.Minute))
	}
	return nil
}

// join registers our leg of the offer's session.
func (e *Endpoint) join(ctx context.Context, o *Offer) (*link, error) {
	id, err := o.initialID()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOffer, err)
	}
	until, pause := time.Now().Add(joinPatience), minBackoff
	for {
		l, _, err := e.openLink(ctx, o.relay, o.session, control.Accepter, o.join, &id)
		switch {
		case err == nil:
			return l, nil
		case refusedAs(err, control.CodeUnauthorized):
			return nil, fmt.Errorf("%w: %w", ErrOfferExpired, err)
		case refusedAs(err, control.CodeConflict), refusedAs(err, control.CodeForbidden):
			return nil, fmt.Errorf("%w: %w", ErrOfferUsed, err)
		case !refusedAs(err, control.CodeNotFound):
			return nil, err
		case time.Now().After(until):
			return nil, fmt.Errorf("%w: it has left the relay", ErrPeerGone)
		}
		sleep(ctx, pause)
		pause *= 2
	}
}

// respond performs the handshake with the first flight that the offer holds.
func (e *Endpoint) respond(ctx context.Context, l *link, o *Offer) (*Conn, error) {
	var verdict verdict
	conf := e.conf.peerTLS(true, func(id PeerID) error { return verdict.is(e.judge(o.dialer, id)) })
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	l.transport.ConnContext = func(conn context.Context, _ *quic.ClientInfo) (context.Context, error) {
		// A handshake that fails never comes out of Listener.Accept.
		context.AfterFunc(conn, func() { fail(cause(ctx, context.Cause(conn))) })
		return conn, nil
	}
	quicConf := e.conf.quicConfig()
	quicConf.HandshakeIdleTimeout = min(quicConf.HandshakeIdleTimeout, helloPatience)
	listener, err := l.transport.Listen(conf, quicConf)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	datagrams, err := o.datagrams()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOffer, err)
	}
	l.inject(datagrams)
	qc, err := listener.Accept(ctx)
	if err := verdict.get(); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, cause(ctx, err)
	}
	c, err := e.welcome(ctx, l, qc, o)
	if err != nil {
		_ = qc.CloseWithError(CodeHandshake, err.Error())
		return nil, err
	}
	return c, nil
}

// welcome exchanges hellos on a connection that the other side has dialed.
func (e *Endpoint) welcome(ctx context.Context, l *link, qc *quic.Conn, o *Offer) (*Conn, error) {
	stream, err := qc.AcceptStream(ctx)
	if err != nil {
		return nil, cause(ctx, err)
	}
	defer context.AfterFunc(ctx, func() { stream.CancelRead(0) })()
	s := newSignal(stream)
	f, err := s.read()
	if err != nil {
		return nil, cause(ctx, err)
	}
	if _, err := parseHello(f); err != nil {
		return nil, err
	}
	shown, err := proof(qc.ConnectionState().TLS, o.secret)
	if err != nil {
		return nil, err
	}
	if err := s.write(hello{version: signalVersion, proof: shown}.frame()); err != nil {
		return nil, cause(ctx, err)
	}
	return e.newConn(l, qc, s)
}
