package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quicway/quicway/internal/tunnel"
	"github.com/quicway/quicway/quota"
)

// ServeTCP accepts tunnels on l, for clients that UDP does not reach, until the Server is
// closed. Then it returns ErrClosed. It closes l. It returns another error if l fails, and
// leaves the Server running. The Server must be running as well, or be started soon. ServeTCP
// may be called several times, for several listeners; l usually has the same port as the
// Server, and perhaps there is another one at port 443, which proxies allow.
//
// A tunnel is CONNECT-UDP (RFC 9298) over HTTP/1.1 with TLS 1.3, with the certificate of
// the Server. Its only target is the Server itself: ServeTCP refuses all others, and never
// opens a socket for a client. The datagrams in a tunnel are treated like those that come by
// UDP, and count for the address of the TCP connection. [Config.MaxTunnels] bounds the
// TCP connections. A connection that has no tunnel after ten seconds is closed. A tunnel is
// closed when, for 30 seconds, no control connection in it was authenticated or waited for
// offers. The kernel does not forward the packets of a session with a tunnel ([Config.XDP]).
//
// If a proxy in front of the Server hides the addresses of the clients, l has to report them
// in the RemoteAddr of its connections.
func (s *Server) ServeTCP(l net.Listener) error {
	s.starting.Lock()
	if s.closing.Err() != nil {
		s.starting.Unlock()
		return errors.Join(ErrClosed, l.Close())
	}
	s.running.Add(1)
	s.starting.Unlock()
	defer s.running.Done()
	conf, err := s.secrets.tlsConfig(s.conf.TLS)
	if err != nil {
		return errors.Join(fmt.Errorf("relay: %w", err), l.Close())
	}
	conf.ClientAuth = tls.NoClientCert // the control connection in the tunnel asks for it
	conf.NextProtos = []string{"http/1.1"}
	conf.DynamicRecordSizingDisabled = true // each write is a batch of packets
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	server := &http.Server{
		Protocols:      protocols,
		Handler:        s.tunnelHandler(),
		ReadTimeout:    requestTimeout, // a tunnel has neither: Hijack ends them
		WriteTimeout:   requestTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ErrorLog:       log.New(io.Discard, "", 0), // whatever a client does is no error
		ConnContext:    withTunnelConn,
	}
	stop := context.AfterFunc(s.closing, func() { _ = server.Close() })
	defer stop()
	err = server.Serve(&tunnelListener{Listener: l, tls: conf, server: s})
	closeErr := server.Close() // also what was accepted while the Server closed
	if s.closing.Err() != nil {
		return ErrClosed
	}
	return errors.Join(fmt.Errorf("relay: accept tunnels at %v: %w", l.Addr(), err), closeErr)
}

// tunnelListener accepts TCP connections that are within the limits, and begins TLS on them.
type tunnelListener struct {
	net.Listener
	tls    *tls.Config
	server *Server
}

// Accept implements [net.Listener].
func (l *tunnelListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		admitted, err := l.admit(conn)
		if err != nil {
			l.server.tunnels.refuse(addrOf(conn), err)
			_ = conn.Close()
			continue
		}
		return tls.Server(admitted, l.tls), nil
	}
}

// admit counts a TCP connection until it is closed, or returns why it has to be closed now.
func (l *tunnelListener) admit(conn net.Conn) (net.Conn, error) {
	s := l.server
	c := &tunnelConn{Conn: &tunnel.Conn{Conn: conn}, tunnels: s.tunnels, remote: addrOf(conn)}
	if !c.remote.IsValid() {
		return nil, fmt.Errorf("%v is not a TCP address", conn.RemoteAddr())
	}
	if !s.tunnels.enter(c.remote.Addr()) {
		return nil, errTooManyTunnels
	}
	if s.conf.Quota != nil {
		slot, err := s.conf.Quota.Admit(c.remote, true)
		if err != nil {
			s.tunnels.leave(c.remote.Addr())
			return nil, err
		}
		c.slot = slot
	}
	c.limit = time.AfterFunc(requestTimeout, func() { _ = conn.Close() }) // whoever reads it ends c
	if c.slot != nil {
		c.slot.OnEnd(func() { _ = c.Close() })
	}
	return c, nil
}

// addrOf returns the remote address of a TCP connection, or the zero AddrPort.
func addrOf(conn net.Conn) netip.AddrPort {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	addr := tcp.AddrPort()
	return netip.AddrPortFrom(addr.Addr().Unmap().WithZone(""), addr.Port())
}

// tunnelConn is the TCP connection of a tunnel, or of one to be.
type tunnelConn struct {
	*tunnel.Conn
	tunnels *tunnels
	remote  netip.AddrPort
	slot    *quota.Slot // nil: no quota
	once    sync.Once
	limit   *time.Timer // closes the TCP connection, unless a tunnel is granted before
}

// Close implements [net.Conn].
func (c *tunnelConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.limit.Stop()
		if c.slot != nil {
			c.slot.Release()
		}
		c.tunnels.leave(c.remote.Addr())
	})
	return err
}

type tunnelConnKey struct{}

// withTunnelConn is the ConnContext of the http.Server.
func withTunnelConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, tunnelConnKey{}, conn.(*tls.Conn).NetConn())
}

// tunnelHandler answers the requests on TCP connections.
func (s *Server) tunnelHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(tunnel.Pattern, s.serveTunnel)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close") // a client that gets no tunnel has nothing else to do here
		if r.ContentLength != 0 {
			http.Error(w, "no request has a body here", http.StatusRequestEntityTooLarge)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// serveTunnel grants or refuses a tunnel, and serves it.
func (s *Server) serveTunnel(w http.ResponseWriter, r *http.Request) {
	client := r.Context().Value(tunnelConnKey{}).(*tunnelConn)
	switch {
	case !tunnel.IsUpgrade(r.Header):
		w.Header().Set("Upgrade", "connect-udp")
		http.Error(w, "this is a tunnel (RFC 9298)", http.StatusUpgradeRequired)
		return
	case !s.isOwnTarget(r):
		s.tunnels.refuse(client.remote, errTarget)
		w.Header().Set("Proxy-Status", "quicway; error=destination_ip_prohibited") // RFC 9209 §2.3.5
		http.Error(w, errTarget.Error(), http.StatusForbidden)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.tunnels.refuse(client.remote, err)
		return
	}
	if err := grantTunnel(rw.Writer); err != nil || !client.limit.Stop() {
		_ = conn.Close()
		return
	}
	s.log.Debug("tunnel opened", "addr", client.remote)
	s.tunnels.serve(conn, client, tunnel.NewReader(rw.Reader))
}

// grantTunnel writes the answer that grants a tunnel.
func grantTunnel(w *bufio.Writer) error {
	answer := &http.Response{StatusCode: http.StatusSwitchingProtocols, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}}
	tunnel.SetUpgrade(answer.Header)
	if err := answer.Write(w); err != nil {
		return err
	}
	return w.Flush()
}

var errTarget = errors.New("a tunnel leads only to the relay itself")

// isOwnTarget says whether the target of a tunnel is this relay: the host by which the client
// has reached it, or one of its addresses, and one of its UDP ports, or the port by which the
// client has reached it. The advertised address is this relay as well. Whatever the client
// says, its datagrams go only to this relay.
func (s *Server) isOwnTarget(r *http.Request) bool {
	port, err := strconv.ParseUint(r.PathValue("target_port"), 10, 16)
	if err != nil {
		return false
	}
	authority, reached := splitAuthority(r.Host)
	host := r.PathValue("target_host")
	if strings.EqualFold(net.JoinHostPort(host, strconv.Itoa(int(port))), s.conf.Advertise) {
		return true
	}
	if uint16(port) != reached && !s.sockets.hasPort(uint16(port)) {
		return false
	}
	if host != "" && strings.EqualFold(host, authority) {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && s.sockets.hasAddr(addr.Unmap())
}

// splitAuthority returns the host and the port of an authority with the scheme https.
func splitAuthority(authority string) (host string, port uint16) {
	host, service, err := net.SplitHostPort(authority)
	if err != nil {
		return strings.Trim(authority, "[]"), 443
	}
	n, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return host, 0
	}
	return host, uint16(n)
}

// hasPort says whether there is a socket with a port.
func (s *sockets) hasPort(port uint16) bool {
	for i := range s.groups {
		if s.groups[i].addr.Port() == port {
			return true
		}
	}
	return false
}

// hasAddr says whether there is a socket at an address of this host.
func (s *sockets) hasAddr(addr netip.Addr) bool {
	for i := range s.groups {
		if bound := s.groups[i].addr.Addr(); bound == addr || bound.IsUnspecified() && s.local.has(addr) {
			return true
		}
	}
	return false
}
