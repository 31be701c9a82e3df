package relay

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/amplify"
	"github.com/quicway/quicway/internal/tunnel"
	"github.com/quicway/quicway/internal/udp"
)

// Bounds of the control connections, which carry a few small messages each.
const (
	// spareConnections may exist besides two for each session: peers that
	// connect again before the old connection is known to be dead, and peers that
	// wait for offers.
	spareConnections = 4096
	maxHeaderBytes   = 8 << 10
	// maxRequests is how many streams a client may have at once, and how many requests
	// may be under way at once on one connection. A request for events, or for all offers
	// that come, is under way only until its answer begins.
	// unauthenticatedRequests is how many may be under way on a connection that is not
	// authenticated: a client that does not know the parameter "stream" waits for an offer
	// while it acknowledges another one and registers.
	maxRequests             = 16
	unauthenticatedRequests = 3
	// requestTimeout is how long a request may take to arrive.
	requestTimeout = 10 * time.Second
	// unauthenticatedTimeout is how long a connection may live that is neither
	// authenticated nor waits for offers to its own key.
	unauthenticatedTimeout = 30 * time.Second
	// maxUnauthenticated bounds the connections that are not authenticated and do
	// not wait for offers. Each may hold 150 kB.
	maxUnauthenticated = 256
	// packetSize fits every path that carries QUIC (RFC 9000 §14). Messages are
	// small, and a path that carries larger packets today may not do so tomorrow.
	packetSize = 1200
	// controlQueue is how many packets wait for the relay's own QUIC at most, each in 2
	// KiB. When many clients connect at once, which they do when a relay has been
	// restarted, the handshakes keep the processors busy for so long that thousands of
	// packets wait.
	controlQueue = 16384
	// noTokens makes the tokens of NEW_TOKEN frames (RFC 9000 §8.1.3) invalid: a
	// client could show one for as long as it is valid from an address that it no
	// longer has. Tokens of a Retry are valid for ten seconds, which is twice
	// HandshakeIdleTimeout.
	noTokens = -100 * 365 * 24 * time.Hour
)

// controlConfig is the QUIC configuration of control connections. The clients keep
// them alive, because it is their NATs that forget mappings.
func controlConfig() *quic.Config {
	return &quic.Config{
		MaxIdleTimeout:                 time.Minute,
		HandshakeIdleTimeout:           5 * time.Second,
		InitialPacketSize:              packetSize,
		DisablePathMTUDiscovery:        true,
		InitialStreamReceiveWindow:     8 << 10,
		MaxStreamReceiveWindow:         16 << 10,
		InitialConnectionReceiveWindow: 16 << 10,
		MaxConnectionReceiveWindow:     32 << 10,
		MaxIncomingStreams:             maxRequests,
		MaxIncomingUniStreams:          3, // what HTTP/3 needs (RFC 9114 §6.2)
	}
}

// controlServer is the relay's own QUIC and HTTP/3 server, to which the control
// connections lead.
type controlServer struct {
	env        *env
	conn       udp.Conn // the transport's socket; the shards feed it
	transport  transport
	http       *http3.Server
	gate       gate
	handshakes handshakes
	amplify    *amplify.Limit // bounds what the relay's own QUIC sends
	lobbies    lobbies
	tunnels    *tunnels
	closing    context.Context // done when the server closes
	serving    sync.WaitGroup  // the goroutines that serve connections
}

// newControlServer makes a control server that is not started yet.
func newControlServer(closing context.Context, e *env, secrets *secrets, handler http.Handler) (*controlServer, error) {
	c := &controlServer{
		env:     e,
		gate:    gate{max: 2*e.conf.MaxSessions + spareConnections, maxEach: e.conf.MaxConnectionsPerSource},
		amplify: amplify.New(amplify.Config{IDLen: cid.Len}),
		lobbies: lobbies{unauthenticated: newLobby(maxUnauthenticated), listeners: newLobby(e.conf.MaxListeners)},
		tunnels: e.sockets.tunnels,
		closing: closing,
	}
	var err error
	c.conn, err = udp.NewVirtual(&udp.VirtualConfig{Socket: e.sockets.all[0], Send: c.send, Queue: controlQueue})
	if err != nil {
		return nil, err
	}
	tlsConf, err := secrets.tlsConfig(e.conf.TLS)
	if err != nil {
		return nil, err
	}
	reset, err := secrets.resetKey(resetName(e.conf, e.sockets))
	if err != nil {
		return nil, err
	}
	plain := &quic.Transport{
		Conn:                  c.conn,
		ConnectionIDGenerator: cid.NewGenerator(cid.NewKey(), cid.Relay, nil),
		StatelessResetKey:     reset,
		TokenGeneratorKey:     &secrets.validation,
		MaxTokenAge:           noTokens,
		VerifySourceAddress:   func(addr net.Addr) bool { return c.gate.needsRetry(udp.AddrPort(addr).Addr()) },
		ConnContext:           c.enterQUIC,
	}
	c.transport = plainTransport{plain}
	if e.conf.Quota != nil {
		limited, err := e.conf.Quota.Transport(plain)
		if err != nil {
			return nil, err
		}
		c.transport, handler = quotaTransport{limited}, e.conf.Quota.Handler(handler)
	}
	c.http = &http3.Server{
		Handler:        handler,
		TLSConfig:      http3.ConfigureTLSConfig(tlsConf),
		ConnContext:    c.enterHTTP,
		MaxHeaderBytes: maxHeaderBytes,
	}
	return c, nil
}

// start accepts control connections until the server closes.
func (c *controlServer) start() error {
	listener, err := c.transport.listen(c.http.TLSConfig, controlConfig())
	if err != nil {
		return err
	}
	c.serving.Go(func() { c.accept(listener) })
	return nil
}

// close waits for the connections, which closing ends, and then closes the transport,
// so that the clients still get a CONNECTION_CLOSE.
func (c *controlServer) close() error {
	c.serving.Wait()
	return errors.Join(c.transport.Close(), c.conn.Close())
}

// receive hands packets to the relay's own QUIC. It returns how many were dropped
// because QUIC does not keep up.
func (c *controlServer) receive(m *udp.Message) (dropped int) {
	c.amplify.Received(m.Remote, m.Data, len(m.Data))
	return c.conn.Deliver(m)
}

// send sends packets of the relay's own QUIC, unless their destination may not get them.
func (c *controlServer) send(m *udp.Message) error {
	if !c.handshakes.maySend(m) {
		c.env.counters.unproven.Add(uint64(m.Count()))
		return nil
	}
	if !c.amplify.MaySend(m.Remote, m.Data) {
		return nil
	}
	if tunnel.IsAddress(m.Remote.Addr()) {
		c.tunnels.send(m)
		return nil
	}
	group := c.env.sockets.toward(m.Local, m.Remote.Addr())
	return c.env.sockets.groups[group].sockets[0].Write(m)
}

// enterQUIC is the ConnContext of the quic.Transport. It makes the client of a new
// connection, or refuses the connection if there is no room for it.
func (c *controlServer) enterQUIC(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	remote := udp.AddrPort(info.RemoteAddr)
	a := c.gate.enter(remote.Addr(), info.AddrVerified)
	if a == nil {
		return nil, errTooManyConnections
	}
	cl := newClient(&c.lobbies, a, c.amplify.Enter(remote))
	cl.tunnels = c.tunnels
	context.AfterFunc(ctx, func() {
		a.leave()
		cl.peer.Leave()
	})
	return context.WithValue(ctx, clientKey{}, cl), nil
}

// enterHTTP is the ConnContext of the http3.Server. It completes the client of a
// connection whose handshake is complete, or closes the connection if there is no room
// for it.
func (c *controlServer) enterHTTP(ctx context.Context, conn *quic.Conn) context.Context {
	cl := conn.Context().Value(clientKey{}).(*client)
	cl.conn, cl.instance = conn, c.env.members.id
	cl.peer.Follow(conn)
	c.handshakes.add(conn.Context(), remoteAddr(conn))
	if !cl.admission.establish() {
		cl.closeExcess()
	}
	return ctx
}

// accept accepts and serves connections until the server closes.
func (c *controlServer) accept(listener http3.QUICListener) {
	defer listener.Close()
	for {
		conn, err := listener.Accept(c.closing)
		if err != nil {
			return
		}
		c.serving.Go(func() { c.serve(conn) })
	}
}

// serve serves one connection until it ends. It takes the place of http3's own loop,
// which lets a request arrive as slowly as the client likes.
func (c *controlServer) serve(conn *quic.Conn) {
	raw, err := c.http.NewRawServerConn(conn)
	if err != nil {
		_ = conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeInternalError), "")
		return
	}
	cl := conn.Context().Value(clientKey{}).(*client)
	cl.tunnel = c.tunnels.find(remoteAddr(conn))
	cl.updateLobby()
	defer func() {
		cl.over.Store(true)
		cl.updateLobby()
	}()
	defer cl.closeUnauthenticated()()
	var streams sync.WaitGroup
	defer streams.Wait()
	defer cl.errands.close()
	streams.Go(func() { c.serveUni(conn, raw) })
	for cl.beginRequest() {
		stream, err := conn.AcceptStream(c.closing)
		if err != nil {
			break
		}
		_ = stream.SetReadDeadline(time.Now().Add(requestTimeout))
		streams.Go(func() {
			defer cl.endRequest()
			raw.HandleRequestStream(stream)
		})
	}
	cl.close("")
}

// serveUni serves the unidirectional streams of a connection, one after the other. The
// control stream lasts as long as the connection (RFC 9114 §6.2.1), so streams that are
// opened after it are not read, and the client cannot send more than a window on them. The
// relay needs none of them: it has no dynamic table of QPACK, and pushes nothing.
func (c *controlServer) serveUni(conn *quic.Conn, raw *http3.RawServerConn) {
	for {
		stream, err := conn.AcceptUniStream(c.closing)
		if err != nil {
			return
		}
		raw.HandleUnidirectionalStream(stream)
	}
}
