package p2p

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// The handshake of two peers has two steps: the QUIC handshake, whose first flight the
// offer carries, and an exchange of hellos on the first bidirectional stream. By its
// hello the accepter proves that it has the offer. A dialer does not wait for the hello
// on the stream if it has got an early one (earlyhello.go).

// acceptIdle is how long an accepter waits for the dialer's next packet during the
// handshake. The dialer is waiting for the answer, but sends each probe after twice the time of
// the one before (RFC 9002 §6.2.1): seven of them come in this time, and one may get through.
const acceptIdle = 30 * time.Second

// dialHandshake is a QUIC handshake of the dialer's that is under way.
type dialHandshake struct {
	done    chan struct{} // closed when conn and err are set
	conn    *quic.Conn
	err     error
	refusal tlsRefusal
}

// startHandshake begins the dialer's QUIC handshake. It ends when ctx is done.
func (e *Endpoint) startHandshake(ctx context.Context, l *link, peer PeerID) *dialHandshake {
	h := &dialHandshake{done: make(chan struct{})}
	conf := e.conf.peerTLS(false, func(id PeerID) error { return h.refusal.set(e.checkPeer(peer, id)) })
	if e.conf.SmallOffers {
		conf.CurvePreferences = []tls.CurveID{tls.X25519}
	}
	e.tasks.Go(func() {
		defer close(h.done)
		h.conn, h.err = l.transport.Dial(l.withPeer(ctx), l.relayAddr(), conf, e.conf.quicConfig())
	})
	return h
}

// failure returns why a handshake has failed.
func (h *dialHandshake) failure(ctx context.Context) error {
	if err := h.refusal.get(); err != nil {
		return err
	}
	return handshakeError(ctx, h.err)
}

// greet exchanges hellos on the dialer's QUIC connection, which it closes if that
// fails.
func (e *Endpoint) greet(ctx context.Context, l *link, qc *quic.Conn, o *Offer) (*Conn, error) {
	s, err := e.dialerHello(ctx, l, qc, o)
	return e.greeted(l, qc, s, err)
}

// dialerHello sends the dialer's hello, and verifies the accepter's: the early one, or the
// one on the stream. TLS has proved the accepter's key.
func (e *Endpoint) dialerHello(ctx context.Context, l *link, qc *quic.Conn, o *Offer) (*signal, error) {
	want, err := offerProof(qc.ConnectionState().TLS, o.secret)
	if err != nil {
		return nil, err
	}
	stream, err := qc.OpenStreamSync(ctx)
	if err != nil {
		return nil, handshakeError(ctx, err)
	}
	s := newSignal(stream)
	if err := s.write(hello{version: signalVersion}.frame()); err != nil {
		return nil, handshakeError(ctx, err)
	}
	late := make(chan error, 1)
	s.greeted = make(chan struct{})
	e.tasks.Go(func() {
		defer close(s.greeted)
		late <- s.verifyHello(ctx, want)
	})
	early := l.hellos.Load().arrived
	if e.list.hasSeveral() {
		early = nil // a standby relay is proposed at once, which the accepter must be ready for
	}
	for {
		select {
		case b := <-early:
			if proves(b, want) {
				return s, nil
			}
		case err := <-late:
			if err != nil {
				return nil, err
			}
			return s, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// verifyHello reads the accepter's hello, and compares its proof.
func (s *signal) verifyHello(ctx context.Context, want []byte) error {
	h, err := s.readHello(ctx)
	if err == nil && !hmac.Equal(h.proof, want) {
		err = fmt.Errorf("%w: it does not have the offer", ErrPeerMismatch)
	}
	return err
}

// respond performs the accepter's handshake, with the first flight that the offer holds,
// while this side's leg is being registered.
func (e *Endpoint) respond(ctx context.Context, l *link, o *Offer, j *joining) (*Conn, error) {
	qc, listener, err := e.respondQUIC(ctx, l, o)
	if err != nil {
		return nil, j.blame(err)
	}
	defer listener.Close() // after the hellos, since it waits for other handshakes
	var s *signal
	if err = j.wait(ctx); err == nil {
		s, err = accepterHello(ctx, qc, o)
	}
	return e.greeted(l, qc, s, err)
}

// respondQUIC performs the accepter's QUIC handshake. The caller closes the listener.
func (e *Endpoint) respondQUIC(ctx context.Context, l *link, o *Offer) (_ *quic.Conn, _ *quic.EarlyListener, err error) {
	var refusal tlsRefusal
	conf := e.conf.peerTLS(true, func(id PeerID) error { return refusal.set(e.checkPeer(o.dialer, id)) })
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	l.transport.ConnContext = func(conn context.Context, _ *quic.ClientInfo) (context.Context, error) {
		// Neither Accept nor HandshakeComplete says that a handshake has failed.
		context.AfterFunc(conn, func() { fail(handshakeError(ctx, context.Cause(conn))) })
		return l.withPeer(conn), nil
	}
	quicConf := e.conf.quicConfig()
	quicConf.HandshakeIdleTimeout = min(quicConf.HandshakeIdleTimeout, acceptIdle)
	listener, err := l.transport.ListenEarly(conf, quicConf)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			listener.Close()
		}
	}()
	datagrams, err := o.datagrams()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformedOffer, err)
	}
	l.inject(datagrams)
	qc, err := e.acceptQUIC(ctx, l, listener, o)
	if err := refusal.get(); err != nil {
		return nil, nil, err
	}
	if err != nil {
		return nil, nil, handshakeError(ctx, err)
	}
	return qc, listener, nil
}

// acceptQUIC waits for the dialer's QUIC connection until its handshake is complete. With
// a [Config.TLS] this side may still refuse the dialer's certificate. Otherwise it has
// decided about the dialer already, and says hello early.
func (e *Endpoint) acceptQUIC(ctx context.Context, l *link, listener *quic.EarlyListener, o *Offer) (*quic.Conn, error) {
	qc, err := listener.Accept(ctx)
	if err != nil {
		return nil, err
	}
	if e.conf.TLS == nil {
		if err := l.sendEarlyHello(qc, o); err != nil {
			e.log.Debug("no early hello", "err", err)
		}
	}
	select {
	case <-qc.HandshakeComplete():
		return qc, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// accepterHello reads the dialer's hello, and sends the accepter's.
func accepterHello(ctx context.Context, qc *quic.Conn, o *Offer) (*signal, error) {
	stream, err := qc.AcceptStream(ctx)
	if err != nil {
		return nil, handshakeError(ctx, err)
	}
	defer context.AfterFunc(ctx, func() { stream.CancelRead(0) })()
	s := newSignal(stream)
	if _, err := s.readHello(ctx); err != nil {
		return nil, err
	}
	proof, err := offerProof(qc.ConnectionState().TLS, o.secret)
	if err != nil {
		return nil, err
	}
	if err := s.write(hello{version: signalVersion, proof: proof}.frame()); err != nil {
		return nil, handshakeError(ctx, err)
	}
	return s, nil
}

// greeted makes a connection of a QUIC connection after the exchange of hellos, which
// has ended with err. It closes the QUIC connection if there is an error.
func (e *Endpoint) greeted(l *link, qc *quic.Conn, s *signal, err error) (*Conn, error) {
	var c *Conn
	if err == nil {
		c, err = e.newConn(l, qc, s)
	}
	if err != nil {
		_ = qc.CloseWithError(CodeHandshake, err.Error())
		return nil, err
	}
	return c, nil
}

// checkPeer says whether a peer is the one that is wanted, if any, and allowed.
func (e *Endpoint) checkPeer(want, have PeerID) error {
	if !want.IsZero() && have != want {
		return fmt.Errorf("%w: %v instead of %v", ErrPeerMismatch, have, want)
	}
	if e.conf.AllowPeer != nil && !e.conf.AllowPeer(have) {
		return fmt.Errorf("%w: %v is not allowed here", errNotAllowed, have)
	}
	return nil
}

// handshakeError turns an error of quic-go's during the handshake into one of this
// package, where there is one.
func handshakeError(ctx context.Context, err error) error {
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

// hello is the first frame of either side. It says which version of the frames the side
// speaks. The accepter's also proves that it has the offer.
type hello struct {
	version uint64
	proof   []byte
}

func (h hello) frame() frame {
	b := quicvarint.Append(nil, h.version)
	b = quicvarint.Append(b, uint64(len(h.proof)))
	return frame{frameHello, append(b, h.proof...)}
}

func parseHello(f frame) (hello, error) {
	if f.kind != frameHello {
		return hello{}, fmt.Errorf("%w: first frame is of type %d, not a hello", errSignal, f.kind)
	}
	version, n, err := quicvarint.Parse(f.payload)
	if err != nil || version == 0 {
		return hello{}, fmt.Errorf("%w: hello without version", errSignal)
	}
	rest := f.payload[n:]
	length, n, err := quicvarint.Parse(rest)
	if err != nil || length > uint64(len(rest)-n) {
		return hello{}, fmt.Errorf("%w: hello without proof", errSignal)
	}
	return hello{version: version, proof: rest[n : n+int(length)]}, nil
}

// readHello reads the other side's hello.
func (s *signal) readHello(ctx context.Context) (hello, error) {
	f, err := s.read()
	if err != nil {
		return hello{}, handshakeError(ctx, err)
	}
	return parseHello(f)
}

// proofLabel names the exporter (RFC 8446 §7.5) that binds a proof to one connection.
const proofLabel = "EXPORTER-quicway-offer"

// offerProof proves to the other end of a TLS connection that this end has the offer. A
// relay that has seen the packets of the offer, but not the offer, cannot make a proof,
// and the proof of another connection is of no use to it.
func offerProof(state tls.ConnectionState, secret offerSecret) ([]byte, error) {
	key, err := state.ExportKeyingMaterial(proofLabel, nil, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("export keying material: %w", err)
	}
	mac := hmac.New(sha256.New, secret[:])
	mac.Write(key)
	return mac.Sum(nil), nil
}
