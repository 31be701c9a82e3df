package quota

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	// defaultIDLen is the length of the connection IDs of a quic.Transport.
	defaultIDLen = 4
	// noTokens is a MaxTokenAge at which no NEW_TOKEN token is valid.
	noTokens = -100 * 365 * 24 * time.Hour
)

// Transport is a [quic.Transport] whose incoming connections are under the quota of a
// [Controller]. Make one with [Controller.Transport]. Its methods have the names, the
// arguments and the errors of those of [quic.Transport], and may be called concurrently.
type Transport struct {
	c     *Controller
	quic  *quic.Transport
	below *filteredConn
}

// Transport returns a transport with the settings of t, at least its Conn, under the quota:
//
//	transport, err := controller.Transport(&quic.Transport{Conn: conn})
//
// The transport reads only packets that the packet filter passes, asks for a Retry where
// [Controller.WantsRetry] does, and admits each connection. Its listeners are [Listener]s.
// Hooks of t are kept: VerifySourceAddress may ask for more Retries. ConnContext is called
// for connections that are admitted, and may use [SlotOf]; whatever context it returns has
// the slot as well.
//
// Tokens of NEW_TOKEN frames (RFC 9000 §8.1.3) are not accepted, whatever the MaxTokenAge of
// t is, since a client that has had an address once could use them again and again. The
// token of a Retry is valid for the time of a handshake, and gives a place among the
// half-open attempts only.
//
// Transport takes t over. Later changes of its fields have no effect, and a listener of t
// itself accepts nothing: its error says why. As with quic-go, the caller closes first the
// transport and then the conn, which [Transport.Close] does not close. A controller may have
// any number of transports, which share its limits.
//
// Transport returns an error, which says what to do, if t has no Conn, has one that is not
// of UDP, is connected to one peer, or is used by another transport of this controller, or
// if t is in use or has been given to a controller already.
func (c *Controller) Transport(t *quic.Transport) (*Transport, error) {
	if err := mayTake(t); err != nil {
		return nil, fmt.Errorf("quota: transport: %w", err)
	}
	conn := t.Conn
	if !c.sockets.add(conn) {
		return nil, errors.New("quota: transport: another Transport reads this Conn: one listens and dials for all")
	}
	inner := settings(t)
	inner.Conn = c.packetConn(conn, idLenOf(t), func() { c.sockets.remove(conn) })
	below := inner.Conn.(interface{ filtered() *filteredConn }).filtered()
	h := &hooks{c: c, limit: below.limit, verifySource: t.VerifySourceAddress, connContext: t.ConnContext}
	inner.MaxTokenAge, inner.VerifySourceAddress, inner.ConnContext = noTokens, h.VerifySourceAddress, h.ConnContext
	t.Conn = takenConn{below}
	return &Transport{c, inner, below}, nil
}

// Listen listens for connections. [Listener.Accept] returns them when their handshake is
// complete. There can be one listener at a time.
func (t *Transport) Listen(tlsConf *tls.Config, conf *quic.Config) (*Listener, error) {
	inner, err := t.quic.Listen(tlsConf, conf)
	if err != nil {
		return nil, err
	}
	return newListener(t.c, inner), nil
}

// ListenEarly listens for connections, and accepts 0-RTT data if conf.Allow0RTT is set.
// [Listener.Accept] says which connections it returns before their handshake is complete.
// There can be one listener at a time.
func (t *Transport) ListenEarly(tlsConf *tls.Config, conf *quic.Config) (*Listener, error) {
	inner, err := t.quic.ListenEarly(tlsConf, conf)
	if err != nil {
		return nil, err
	}
	return newListener(t.c, inner), nil
}

// Dial makes a connection to a server. No quota counts it.
func (t *Transport) Dial(ctx context.Context, addr net.Addr, tlsConf *tls.Config, conf *quic.Config) (*quic.Conn, error) {
	return t.quic.Dial(ctx, addr, tlsConf, conf)
}

// DialEarly makes a connection to a server, with 0-RTT data if possible. No quota counts it.
func (t *Transport) DialEarly(ctx context.Context, addr net.Addr, tlsConf *tls.Config, conf *quic.Config) (*quic.Conn, error) {
	return t.quic.DialEarly(ctx, addr, tlsConf, conf)
}

// ReadNonQUICPacket reads a packet that is not of QUIC, and that the filter has passed.
func (t *Transport) ReadNonQUICPacket(ctx context.Context, b []byte) (int, net.Addr, error) {
	return t.quic.ReadNonQUICPacket(ctx, b)
}

// WriteTo sends a packet that is not of QUIC.
func (t *Transport) WriteTo(b []byte, addr net.Addr) (int, error) { return t.quic.WriteTo(b, addr) }

// Close stops reading from the conn, which may then be used for something else, and ends the
// quota of its port in the kernel. It ends all connections without a CONNECTION_CLOSE, like
// [quic.Transport.Close], and does not close the conn.
func (t *Transport) Close() error {
	err := t.quic.Close()
	t.below.release()
	return err
}

// settings returns a transport with the settings of another one.
func settings(t *quic.Transport) *quic.Transport {
	return &quic.Transport{
		Conn:                             t.Conn,
		ConnectionIDLength:               t.ConnectionIDLength,
		ConnectionIDGenerator:            t.ConnectionIDGenerator,
		StatelessResetKey:                t.StatelessResetKey,
		TokenGeneratorKey:                t.TokenGeneratorKey,
		MaxTokenAge:                      t.MaxTokenAge,
		DisableVersionNegotiationPackets: t.DisableVersionNegotiationPackets,
		VerifySourceAddress:              t.VerifySourceAddress,
		ConnContext:                      t.ConnContext,
		Tracer:                           t.Tracer,
	}
}

// idLenOf returns the length of a transport's connection IDs.
func idLenOf(t *quic.Transport) int {
	switch {
	case t.ConnectionIDGenerator != nil:
		return t.ConnectionIDGenerator.ConnectionIDLen()
	case t.ConnectionIDLength != 0:
		return t.ConnectionIDLength
	}
	return defaultIDLen
}
