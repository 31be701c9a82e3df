package quota

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/pki"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/udp"
)

const serverAddr = "192.0.2.1:443"

// lab is a simulated network with a protected HTTP/3 server.
type lab struct {
	testing.TB
	net       *nettest.Network
	c         *Controller
	conn      net.PacketConn // the server's socket
	transport *Transport
	http      *http3.Server
	tls       *tls.Config

	mu     sync.Mutex           // guards the following
	live   map[netip.Prefix]int // connections that exist, by source
	most   map[netip.Prefix]int // most connections at the same time, by source
	served map[string]int       // requests, by the client's address
	early  int                  // requests before the handshake was complete
	hosts  int
}

// runLab runs a test on the fake clock. At the end it closes the server and checks that no
// connection is left. synctest reports goroutines that are left.
func runLab(t *testing.T, conf *Config, test func(*lab)) {
	t.Helper()
	nettest.Bubble(t, func(t *testing.T) {
		l := newLab(t, conf, nil)
		defer l.close()
		test(l)
	})
}

// newLab starts a server. If wrap is not nil, it wraps the conn below the filter.
func newLab(t *testing.T, conf *Config, wrap func(*lab, net.PacketConn) net.PacketConn) *lab {
	t.Helper()
	l := &lab{TB: t, net: nettest.New(1), c: mustNew(t, conf), live: make(map[netip.Prefix]int), most: make(map[netip.Prefix]int), served: make(map[string]int)}
	l.net.Set(nettest.Conditions{Delay: 5 * time.Millisecond})
	l.tls = http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	var conn net.PacketConn = l.net.Listen(serverAddr)
	if wrap != nil {
		conn = wrap(l, conn)
	}
	l.conn = conn
	var err error
	if l.transport, err = l.c.Transport(&quic.Transport{Conn: conn}); err != nil {
		t.Fatal(err)
	}
	ln, err := l.transport.ListenEarly(l.tls, &quic.Config{MaxIdleTimeout: 30 * time.Second, Allow0RTT: true})
	if err != nil {
		t.Fatal(err)
	}
	l.http = &http3.Server{Handler: l.c.Handler(http.HandlerFunc(l.serve))}
	go l.http.ServeListener(&censusListener{ln, l})
	synctest.Wait()
	return l
}

// serve answers a request.
func (l *lab) serve(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	l.served[r.RemoteAddr]++
	if !r.TLS.HandshakeComplete {
		l.early++
	}
	l.mu.Unlock()
	fmt.Fprint(w, "served")
}

// servedOf returns the number of connections from an address on which a request was
// served.
func (l *lab) servedOf(ip string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for remote := range l.served {
		if addr(remote).Addr() == netip.MustParseAddr(ip) {
			n++
		}
	}
	return n
}

func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.SelfSigned(key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (l *lab) close() {
	l.http.Close()
	l.transport.Close()
	l.conn.Close()
	synctest.Wait()
	wantLive(l.TB, l.c, 0, 0)
}

// censusListener counts the accepted connections that exist, by source, independently of
// the controller.
type censusListener struct {
	quicListener
	lab *lab
}

func (c *censusListener) Accept(ctx context.Context) (*quic.Conn, error) {
	conn, err := c.quicListener.Accept(ctx)
	if err != nil {
		return nil, err
	}
	source := c.lab.c.Source(udp.AddrPort(conn.RemoteAddr()).Addr())
	go func() {
		select {
		case <-conn.HandshakeComplete():
		case <-conn.Context().Done():
			return
		}
		c.lab.mu.Lock()
		c.lab.live[source]++
		c.lab.most[source] = max(c.lab.most[source], c.lab.live[source])
		c.lab.mu.Unlock()
		<-conn.Context().Done()
		c.lab.mu.Lock()
		c.lab.live[source]--
		c.lab.mu.Unlock()
	}()
	return conn, nil
}

// mostOf returns the most connections that a source had at the same time.
func (l *lab) mostOf(ip string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.most[l.c.Source(netip.MustParseAddr(ip))]
}

// client is a socket with a QUIC transport.
type client struct {
	lab       *lab
	conn      *nettest.Conn
	transport *quic.Transport
}

// client opens a socket at an address, with a new port.
func (l *lab) client(ip string) *client {
	l.Helper()
	l.mu.Lock()
	l.hosts++
	port := 1000 + l.hosts
	l.mu.Unlock()
	conn := l.net.Listen(netip.AddrPortFrom(netip.MustParseAddr(ip), uint16(port)).String())
	return &client{l, conn, &quic.Transport{Conn: conn}}
}

func (c *client) close() {
	c.transport.Close()
	c.conn.Close()
}

// dial makes a connection to the server.
func (c *client) dial(ctx context.Context) (*quic.Conn, error) {
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}}
	return c.transport.Dial(ctx, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(serverAddr)), conf, &quic.Config{KeepAlivePeriod: 5 * time.Second})
}

// get makes a request on a connection, and reads the response.
func get(ctx context.Context, conn *quic.Conn) (*http.Response, error) {
	return getOn(ctx, (&http3.Transport{}).NewClientConn(conn))
}

func getOn(ctx context.Context, conn *http3.ClientConn) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", "https://server/", nil)
	if err != nil {
		return nil, err
	}
	resp, err := conn.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	_, err = io.ReadAll(resp.Body)
	return resp, err
}

// visit makes a connection and a request, and closes the connection, as a good client does.
func (l *lab) visit(ip string) error {
	c := l.client(ip)
	defer c.close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := c.dial(ctx)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer conn.CloseWithError(0, "")
	resp, err := get(ctx, conn)
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

// wantServed makes n visits of good clients from different addresses, and checks that they
// are served.
func (l *lab) wantServed(n int) {
	l.Helper()
	for i := range n {
		if err := l.visit(fmt.Sprintf("198.51.100.%d", 1+i%200)); err != nil {
			l.Errorf("good client %d: %v", i, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// hold dials n connections from one address, and keeps those that succeed. When it
// returns, the server has completed their handshakes too.
func (l *lab) hold(ip string, n int) (held []*quic.Conn, clients []*client) {
	for range n {
		c := l.client(ip)
		clients = append(clients, c)
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		conn, err := c.dial(ctx)
		cancel()
		if err == nil {
			held = append(held, conn)
		}
	}
	time.Sleep(50 * time.Millisecond) // of the fake clock: ten times the network's delay
	return held, clients
}

func closeAll(clients []*client) {
	for _, c := range clients {
		c.close()
	}
}

// distrusting is a configuration that trusts no certificate.
var distrusting = tls.Config{NextProtos: []string{http3.NextProtoH3}, ServerName: "server"}
