package p2p

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/quicway/quicway/internal/tunnel"
	"github.com/quicway/quicway/internal/udp"
)

// relayTunnel carries packets between this endpoint and a relay that UDP does not reach, over
// TCP (RFC 9298). For everything above the mux it is an address of the relay.
type relayTunnel struct {
	addr   netip.AddrPort // stands for the tunnel
	remote netip.AddrPort // the other end of the TCP connection: the relay's, or the proxy's
	queue  *tunnel.Queue
	ctx    context.Context // done when the tunnel has ended
	end    context.CancelFunc
}

// tunnels says whether the endpoint may use tunnels. Sockets that are not the system's are on
// another network than the system's TCP.
func (e *Endpoint) tunnels() bool {
	return !e.conf.DisableTunnel && (e.conf.dialTCP != nil || isUDP(e.mux.all()[0]))
}

// tunneled says whether the relay is reached through a tunnel.
func (c *relayClient) tunneled() bool { return tunnel.IsAddress(c.address().Addr()) }

// place returns the kind of the path over the relay, and where its packets are sent to.
func (l *link) place() (PathKind, netip.AddrPort) {
	at := l.remote()
	if !tunnel.IsAddress(at.Addr()) {
		return Relayed, at
	}
	if t := l.mux.tunnel(at); t != nil {
		return Tunneled, t.remote
	}
	return Tunneled, netip.AddrPort{}
}

// dialTunnel opens a tunnel to the relay at one of its addresses, and a control connection in
// it. addr stands for the tunnel.
func (c *relayClient) dialTunnel(ctx context.Context, addr netip.AddrPort, at []netip.AddrPort) (*controlConn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	t, err := c.openTunnel(ctx, addr, at)
	if err != nil {
		c.endpoint.mux.removeTunnel(addr)
		return nil, err
	}
	defer context.AfterFunc(t.ctx, cancel)()
	conn, err := dialControl(ctx, c, addr)
	if err != nil {
		c.endpoint.mux.closeTunnel(t)
		return nil, err
	}
	conn.tunnel = t
	return conn, nil
}

// openTunnel opens a tunnel to the relay: at the port of its UDP, or at its other port.
func (c *relayClient) openTunnel(ctx context.Context, addr netip.AddrPort, at []netip.AddrPort) (*relayTunnel, error) {
	_, port, err := c.relay.split()
	if err != nil {
		return nil, err
	}
	ports := []uint16{port}
	if other := c.relay.TunnelPort; other != 0 && other != port {
		ports = append(ports, other)
	}
	conn, err := stagger(ctx, len(ports), func(ctx context.Context, i int) (*upgraded, error) {
		return c.upgrade(ctx, port, ports[i], at)
	}, func(u *upgraded) { _ = u.Close() })
	switch {
	case errors.Is(err, ErrRelayMismatch):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %s through a tunnel: %w", ErrRelayUnreachable, c.relay.Addr, err)
	}
	t := &relayTunnel{addr: addr, queue: tunnel.NewQueue(conn, conn.Conn)}
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		t.remote = netip.AddrPortFrom(tcp.AddrPort().Addr().Unmap(), tcp.AddrPort().Port())
	}
	t.ctx, t.end = context.WithCancel(context.Background())
	c.endpoint.mux.startTunnel(t, conn)
	c.endpoint.log.Info("tunnel opened", "relay", c.relay.Addr, "addr", t.remote)
	return t, nil
}

// upgraded is the connection of a request for a tunnel that the relay has granted.
type upgraded struct {
	*tunnel.Conn // of TCP
	body         io.ReadWriteCloser
}

func (u *upgraded) Read(b []byte) (int, error)  { return u.body.Read(b) }
func (u *upgraded) Write(b []byte) (int, error) { return u.body.Write(b) }

// NetConn returns the TCP connection, as that of a tls.Conn does.
func (u *upgraded) NetConn() net.Conn { return u.Conn }

// upgrade asks the relay for a tunnel to its UDP port, over TCP to another port. at are the
// relay's addresses.
func (c *relayClient) upgrade(ctx context.Context, udpPort, tcpPort uint16, at []netip.AddrPort) (*upgraded, error) {
	var refusal tlsRefusal
	u := new(upgraded)
	transport, target, err := c.tunnelTransport(tcpPort, at, &refusal, func(conn *tunnel.Conn) { u.Conn = conn })
	if err != nil {
		return nil, err
	}
	defer transport.CloseIdleConnections()
	target += tunnel.Path(c.relay.hostname(), udpPort)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	req.Host = net.JoinHostPort(c.relay.hostname(), strconv.Itoa(int(tcpPort)))
	tunnel.SetUpgrade(req.Header)
	resp, err := transport.RoundTrip(req)
	var untrusted *tls.CertificateVerificationError
	switch {
	case refusal.get() != nil:
		return nil, refusal.get()
	case errors.Is(err, errProxyTLS):
		return nil, err
	case errors.As(err, &untrusted):
		return nil, c.relay.untrusted(untrusted)
	case err != nil:
		return nil, err
	}
	body, ok := resp.Body.(io.ReadWriteCloser)
	if resp.StatusCode != http.StatusSwitchingProtocols || !tunnel.IsUpgrade(resp.Header) || !ok {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("the relay grants no tunnel: %s", resp.Status)
	}
	u.body = body
	return u, nil
}

// tunnelTransport returns a transport for one request to the relay, and the beginning of its URL.
// It calls dialed with the TCP connection.
func (c *relayClient) tunnelTransport(port uint16, at []netip.AddrPort, refusal *tlsRefusal, dialed func(*tunnel.Conn)) (*http.Transport, string, error) {
	proxy, err := c.tunnelProxy()
	if err != nil {
		return nil, "", err
	}
	var addrs []netip.AddrPort
	for _, a := range at {
		addrs = append(addrs, netip.AddrPortFrom(a.Addr(), port))
	}
	host := c.relay.hostname()
	switch {
	case proxy != nil && !c.isConfigured():
		// The proxy must not look up a name of an offer: mayReach has checked addresses.
		if len(addrs) == 0 {
			return nil, "", errNoAddress
		}
		host = addrs[0].Addr().String()
	case proxy == nil && len(addrs) == 0:
		return nil, "", errNoAddress
	}
	conf := c.endpoint.conf.relayTLS(c.relay, refusal)
	conf.NextProtos = []string{"http/1.1"}
	conf.Certificates = nil // the control connection shows it
	conf.DynamicRecordSizingDisabled = true
	dial := c.endpoint.conf.dialStream
	transport := &http.Transport{
		Proxy: http.ProxyURL(proxy),
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			if proxy != nil {
				conn, err = dial(ctx, network, address)
			} else {
				conn, err = stagger(ctx, len(addrs), func(ctx context.Context, i int) (net.Conn, error) {
					return dial(ctx, network, addrs[i].String())
				}, func(conn net.Conn) { _ = conn.Close() })
			}
			if err != nil {
				return nil, err
			}
			tcp := &tunnel.Conn{Conn: conn}
			dialed(tcp)
			return tcp, nil
		},
		TLSClientConfig:        conf,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxAnswerHeader,
		MaxConnsPerHost:        1,
	}
	if proxy != nil && proxy.Scheme == "https" {
		// Without this the transport would expect the relay's certificate of the proxy.
		transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := transport.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return c.endpoint.conf.startProxyTLS(ctx, conn, proxy.Hostname())
		}
	}
	return transport, "https://" + net.JoinHostPort(host, strconv.Itoa(int(port))), nil
}

// startProxyTLS begins TLS with an https proxy, which needs a certificate that the system trusts.
// It closes the connection if that fails.
func (c *Config) startProxyTLS(ctx context.Context, conn net.Conn, host string) (net.Conn, error) {
	conf := new(tls.Config)
	if c.proxyTLS != nil {
		conf = c.proxyTLS.Clone()
	}
	if conf.ServerName == "" {
		conf.ServerName = host
	}
	conf.NextProtos = []string{"http/1.1"}
	secure := tls.Client(conn, conf)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("%w %s: %w", errProxyTLS, host, err)
	}
	return secure, nil
}

// errProxyTLS: the proxy, and not the relay, has no certificate that the system trusts, or speaks
// no TLS.
var errProxyTLS = errors.New("TLS with the proxy")

// errNoAddress: the relay's name was not found, and there is no proxy that could look it up.
var errNoAddress = errors.New("no address")

// tunnelProxy returns the proxy that the system or the application wants for the relay, or nil.
func (c *relayClient) tunnelProxy() (*url.URL, error) {
	proxy := c.endpoint.conf.Proxy
	if proxy == nil {
		proxy = http.ProxyFromEnvironment
	}
	req, err := http.NewRequest(http.MethodGet, "https://"+c.relay.Addr, nil)
	if err != nil {
		return nil, err
	}
	return proxy(req)
}

// isConfigured says whether the relay is one of this endpoint's configuration, and not one that
// an offer or the peer names.
func (c *relayClient) isConfigured() bool { return c.endpoint.list.has(c.relay.Addr) }

// dialStream opens a TCP connection.
func (c *Config) dialStream(ctx context.Context, network, address string) (net.Conn, error) {
	if c.dialTCP != nil {
		return c.dialTCP(ctx, network, address)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// stagger makes n attempts, each attemptDelay after the one before, or as soon as that has
// failed, and returns the result of the first that succeeds. discard gets the others.
func stagger[T any](ctx context.Context, n int, try func(context.Context, int) (T, error), discard func(T)) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		value T
		err   error
	}
	results := make(chan result)
	started, running := 0, 0
	defer func() {
		cancel()
		for range running {
			if r := <-results; r.err == nil {
				discard(r.value)
			}
		}
	}()
	var errs []error
	timer := time.NewTimer(0)
	defer timer.Stop()
	for started < n || running > 0 {
		select {
		case <-timer.C:
			if i := started; i < n {
				started, running = started+1, running+1
				go func() {
					value, err := try(ctx, i)
					results <- result{value, err}
				}()
				timer.Reset(attemptDelay)
			}
		case r := <-results:
			running--
			if r.err == nil {
				return r.value, nil
			}
			errs = append(errs, r.err)
			timer.Reset(0)
		}
	}
	var none T
	return none, errors.Join(errs...)
}

// reserveTunnel returns an address that no other tunnel has had. The caller ends the
// reservation with removeTunnel, or starts a tunnel with that address.
func (m *mux) reserveTunnel() netip.AddrPort {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lastTunnel++
	addr := tunnel.Address(netip.AddrPortFrom(netip.IPv4Unspecified(), tunnelPort), m.lastTunnel)
	m.tunnels[addr] = nil
	return addr
}

// tunnelPort is the port of all addresses that stand for tunnels.
const tunnelPort = 443

// removeTunnel ends the reservation of an address.
func (m *mux) removeTunnel(addr netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.tunnels, addr)
}

// tunnel returns the tunnel with an address, or nil.
func (m *mux) tunnel(addr netip.AddrPort) *relayTunnel {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.tunnels[addr]
}

// startTunnel makes the packets to the tunnel's address go into it, and dispatches what comes out
// of it, until the tunnel ends.
func (m *mux) startTunnel(t *relayTunnel, conn net.Conn) {
	m.mu.Lock()
	m.tunnels[t.addr] = t
	m.mu.Unlock()
	m.readers.Go(t.queue.Run)
	m.readers.Go(func() {
		defer m.closeTunnel(t)
		capsules, batch := tunnel.NewReader(conn), make([]udp.Message, batchSize)
		for {
			n, err := capsules.Read(batch)
			if err != nil {
				return
			}
			for i := range batch[:n] {
				batch[i].Remote = t.addr
				m.split(&batch[i])
			}
		}
	})
}

// closeTunnel ends a tunnel. What has been sent before is still written.
func (m *mux) closeTunnel(t *relayTunnel) {
	t.end()
	_ = t.queue.Close()
	m.removeTunnel(t.addr)
}

// closeTunnels ends all tunnels.
func (m *mux) closeTunnels() {
	m.mu.RLock()
	all := slices.Collect(func(yield func(*relayTunnel) bool) {
		for _, t := range m.tunnels {
			if t != nil && !yield(t) {
				return
			}
		}
	})
	m.mu.RUnlock()
	for _, t := range all {
		m.closeTunnel(t)
	}
}

// pushTunnel sends a message into a tunnel. A tunnel that is full drops packets, like a socket of
// which nobody is told.
func (m *mux) pushTunnel(msg *udp.Message) error { return m.intoTunnel(msg, (*tunnel.Queue).Push) }

// writeAsQUIC is write for the goroutines of quic-go that only send. They wait for a tunnel that is
// slower than they are, as they do for a socket, and not for long.
func (m *mux) writeAsQUIC(msg *udp.Message) error {
	if !tunnel.IsAddress(msg.Remote.Addr()) {
		return m.write(msg)
	}
	_ = m.intoTunnel(msg, (*tunnel.Queue).PushWait) // counted
	return nil
}

func (m *mux) intoTunnel(msg *udp.Message, push func(*tunnel.Queue, *udp.Message) int) error {
	t := m.tunnel(msg.Remote)
	if t == nil {
		m.refused.Add(uint64(msg.Count()))
		return errNoSocket
	}
	m.refused.Add(uint64(push(t.queue, msg)))
	return nil
}
