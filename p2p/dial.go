package p2p

import (
	"context"
	"crypto/hmac"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/control"
)

// Dial connects to a peer through the endpoint's relay. It makes an offer,
// delivers it as cfg says, and waits until the peer has answered, ctx is done,
// or the offer has expired ([Config.OfferTTL]). cfg may be nil.
//
// With the zero PeerID, which needs a [DialConfig.Deliver], whoever gets the
// offer first is the peer; [Conn.RemoteID] then tells who it is. Errors wrap
// ErrConfig if nobody is named, ErrRelay if no relay is, ErrOfferExpired, ErrPeerAbsent
// together with that or ctx's error if the offer lies in the mailbox untaken, or
// ErrNotForwarded if nothing comes from the peer by the relay,
// ErrPeerMismatch, ErrPeerRefused, ErrNoDirectPath, ErrRelayUnreachable,
// ErrRelayMismatch, ErrRelayRefused, ErrUnauthorized, ErrClosed, ctx's error, or
// that of Deliver.
func (e *Endpoint) Dial(ctx context.Context, peer PeerID, cfg *DialConfig) (*Conn, error) {
	deliver, err := e.delivery(peer, cfg)
	if err != nil {
		return nil, fmt.Errorf("p2p: dial: %w", err)
	}
	conn, err := e.dial(ctx, peer, deliver, cfg == nil || cfg.Deliver == nil)
	if err == nil {
		conn, err = conn.awaitPolicy(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("p2p: dial: %w", err)
	}
	return conn, nil
}

// Dial is [Endpoint.Dial] on an endpoint of its own over conn, which both end
// with the connection.
func Dial(ctx context.Context, conn net.PacketConn, peer PeerID, cfg *Config, dial *DialConfig) (*Conn, error) {
	e, err := NewEndpoint(cfg, conn)
	if err != nil {
		return nil, err
	}
	c, err := e.Dial(ctx, peer, dial)
	return soleConn(e, c, err)
}

// delivery is how an offer reaches the peer.
func (e *Endpoint) delivery(peer PeerID, cfg *DialConfig) (DeliverFunc, error) {
	switch {
	case cfg != nil && cfg.Deliver != nil:
		return cfg.Deliver, nil
	case peer.IsZero():
		return nil, fmt.Errorf("%w: neither a peer nor DialConfig.Deliver is set", ErrConfig)
	}
	return func(ctx context.Context, offer Offer) error { return e.leave(ctx, peer, offer) }, nil
}

// leave puts an offer into the relay's mailbox, where its addressee looks.
func (e *Endpoint) leave(ctx context.Context, peer PeerID, offer Offer) error {
	h, err := e.acquire(e.conf.Relay)
	if err != nil {
		return err
	}
	defer e.release(h)
	ln, err := h.current(ctx)
	if err != nil {
		return err
	}
	text, err := offer.MarshalText()
	if err != nil {
		return err
	}
	return ln.putOffer(ctx, peer.String(), e.conf.Relay.Token, offer.session, text)
}

func (e *Endpoint) dial(ctx context.Context, peer PeerID, deliver DeliverFunc, mailbox bool) (_ *Conn, err error) {
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.tasks.Done()
	expires := time.Now().Add(e.conf.OfferTTL)
	ctx, cancel := context.WithDeadlineCause(ctx, expires, ErrOfferExpired)
	defer cancel()
	ctx, abort := e.bound(ctx)
	defer abort(nil)

	l, reply, err := e.openLink(ctx, e.conf.Relay, control.NewSessionID(), control.Dialer, e.conf.Relay.Token, nil)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			e.discard(l)
		}
	}()
	l.flight = newFirstFlight()
	attempt := e.startDial(ctx, l, peer)
	select {
	case <-attempt.done:
		return nil, attempt.failure(ctx)
	case <-l.flight.done:
	}
	offer := Offer{
		session: l.session,
		dialer:  e.ID(),
		relay:   Relay{Addr: e.conf.Relay.Addr, Pin: e.conf.Relay.Pin},
		join:    reply.Join,
		secret:  newSecret(),
		expires: expires,
		flight:  l.flight.caught(),
	}
	var delivered atomic.Bool
	e.tasks.Go(func() {
		if err := deliver(ctx, offer); err == nil {
			delivered.Store(true)
		} else if ctx.Err() == nil {
			abort(fmt.Errorf("deliver offer: %w", err))
		}
	})
	<-attempt.done
	if attempt.err != nil {
		err := attempt.failure(ctx)
		if mailbox && delivered.Load() && !l.joined.Load() && !errors.Is(err, ErrClosed) {
			err = fmt.Errorf("%w: %w", ErrPeerAbsent, err)
		}
		return nil, l.explain(err)
	}
	conn, err := e.greet(ctx, l, attempt.conn, &offer)
	return conn, l.explain(err)
}

// attempt is a QUIC handshake under way.
type attempt struct {
	done    chan struct{} // closed when conn and err are set
	conn    *quic.Conn
	err     error
	verdict verdict
}

// startDial begins the handshake. It ends when ctx is done.
func (e *Endpoint) startDial(ctx context.Context, l *link, peer PeerID) *attempt {
	a := &attempt{done: make(chan struct{})}
	conf := e.conf.peerTLS(false, func(id PeerID) error { return a.verdict.is(e.judge(peer, id)) })
	e.tasks.Go(func() {
		defer close(a.done)
		a.conn, a.err = l.transport.Dial(ctx, l.relayAddr(), conf, e.conf.quicConfig())
	})
	return a
}

// failure is why an attempt that has failed did so.
func (a *attempt) failure(ctx context.Context) error {
	if err := a.verdict.get(); err != nil {
		return err
	}
	return cause(ctx, a.err)
}

// verdict is why this side has refused the other: quic-go only tells that TLS
// has failed.
type verdict struct {
	mu  sync.Mutex // guards err
	err error
}

func (v *verdict) is(err error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.err = err
	return err
}

func (v *verdict) get() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.err
}

// cause puts the error of a handshake into this package's terms.
func cause(ctx context.Context, err error) error {
	var transport *quic.TransportError
	var application *quic.ApplicationError
	var idle *quic.IdleTimeoutError
	var handshake *quic.HandshakeTimeoutError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &transport) && transport.Remote:
		return fmt.Errorf("%w: %s", ErrPeerRefused, transport.ErrorMessage)
	case errors.As(err, &application) && application.Remote:
		return fmt.Errorf("%w: %s", ErrPeerRefused, application.ErrorMessage)
	case errors.As(err, &idle), errors.As(err, &handshake):
		return ErrOfferExpired
	}
	return err
}

// judge says whether a peer is the one that is wanted, and allowed at all.
func (e *Endpoint) judge(want, have PeerID) error {
	if !want.IsZero() && have != want {
		return fmt.Errorf("%w: %v instead of %v", ErrPeerMismatch, have, want)
	}
	if e.conf.AllowPeer != nil && !e.conf.AllowPeer(have) {
		return fmt.Errorf("%w: %v is not allowed here", ErrPeerMismatch, have)
	}
	return nil
}

// greet exchanges hellos on a connection that we have dialed.
func (e *Endpoint) greet(ctx context.Context, l *link, qc *quic.Conn, o *Offer) (*Conn, error) {
	c, err := e.greetOn(ctx, l, qc, o)
	if err != nil {
		_ = qc.CloseWithError(CodeHandshake, err.Error())
		return nil, err
	}
	return c, nil
}

func (e *Endpoint) greetOn(ctx context.Context, l *link, qc *quic.Conn, o *Offer) (*Conn, error) {
	stream, err := qc.OpenStreamSync(ctx)
	if err != nil {
		return nil, cause(ctx, err)
	}
	defer context.AfterFunc(ctx, func() { stream.CancelRead(0) })()
	s := newSignal(stream)
	if err := s.write(hello{version: signalVersion}.frame()); err != nil {
		return nil, cause(ctx, err)
	}
	f, err := s.read()
	if err != nil {
		return nil, cause(ctx, err)
	}
	h, err := parseHello(f)
	if err != nil {
		return nil, err
	}
	want, err := proof(qc.ConnectionState().TLS, o.secret)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(h.proof, want) {
		return nil, fmt.Errorf("%w: it does not have the offer", ErrPeerMismatch)
	}
	return e.newConn(l, qc, s)
}

// peerTLS is the configuration between peers. check is asked about the other
// side's identity; with a TLS configuration of the user's own, only if it has
// shown a certificate.
func (c *Config) peerTLS(server bool, check func(PeerID) error) *tls.Config {
	conf := &tls.Config{
		Certificates:       []tls.Certificate{c.Identity.cert},
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: !server, // identities say more than names
		ServerName:         "peer.quicway.invalid",
	}
	if c.TLS != nil {
		conf = c.TLS.Clone()
	}
	c.completeTLS(conf, check)
	if get := conf.GetConfigForClient; get != nil {
		conf.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := get(hello)
			if chosen == nil || err != nil {
				return nil, err
			}
			chosen = chosen.Clone()
			c.completeTLS(chosen, check)
			return chosen, nil
		}
	}
	return conf
}

// completeTLS adds what all configurations between peers have.
func (c *Config) completeTLS(conf *tls.Config, check func(PeerID) error) {
	if conf.NextProtos == nil {
		conf.NextProtos = []string{ALPN}
	}
	conf.MinVersion = tls.VersionTLS13
	verify := conf.VerifyConnection
	conf.VerifyConnection = func(state tls.ConnectionState) error {
		if verify != nil {
			if err := verify(state); err != nil {
				return err
			}
		}
		if c.TLS != nil && c.AllowPeer == nil && len(state.PeerCertificates) == 0 {
			return nil // the user's configuration lets anybody in
		}
		id, err := peerOf(state)
		if err != nil {
			return err
		}
		return check(id)
	}
}
