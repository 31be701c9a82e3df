package p2p

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"testing"

	"github.com/quicway/quicway/relay"
)

// BenchmarkTunnel transfers data on one stream between two peers that UDP does not reach, both in
// tunnels to the relay, and, for comparison, on a TLS connection over TCP that a program on the
// relay's host copies, between the same peers through the relay by UDP, and by quic-go alone,
// directly: a tunnel adds to the work of quic-go. One op is 1 MiB.
func BenchmarkTunnel(b *testing.B) {
	b.Run("tunnel", func(b *testing.B) { benchStream(b, tunneledPair) })
	b.Run("TLS", benchTLS)
	b.Run("relay", func(b *testing.B) { benchStream(b, relayedPair) })
	b.Run("plain", func(b *testing.B) { benchStream(b, plainPair) })
}

// tunneledPair connects two peers, for whom the relay listens for TCP alone.
func tunneledPair(b *testing.B) benchEnds {
	host := benchHost(b)
	server, err := relay.New(nil, benchSocket(b, host))
	if err != nil {
		b.Fatal(err)
	}
	tcp, err := net.Listen("tcp4", net.JoinHostPort(host.String(), "0"))
	if err != nil {
		b.Fatal(err)
	}
	go server.Run(context.Background())
	go server.ServeTCP(tcp)
	b.Cleanup(func() { server.Close() })
	pin, err := ParsePeerID(server.Pin())
	if err != nil {
		b.Fatal(err)
	}
	conf := Config{
		Relay:  Relay{Addr: tcp.Addr().String(), Token: server.Token(), Pin: pin},
		Policy: RelayOnly,
		Proxy:  func(*http.Request) (*url.URL, error) { return nil, nil },
	}
	return benchPeers(b, &conf, Tunneled)
}

// benchPeers connects two peers, and checks the kind of their path.
func benchPeers(b *testing.B, conf *Config, kind PathKind) benchEnds {
	var ends [2]*Endpoint
	for i := range ends {
		e, err := NewEndpoint(conf, benchSocket(b, benchHost(b)))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { e.Close() })
		ends[i] = e
	}
	accepted := make(chan *Conn, 1)
	dialed, err := ends[0].Dial(b.Context(), ends[1].ID(), &DialConfig{Deliver: func(ctx context.Context, o Offer) error {
		c, err := ends[1].AcceptOffer(ctx, o)
		accepted <- c
		return err
	}})
	if err != nil {
		b.Fatal(err)
	}
	c := <-accepted
	for _, end := range []*Conn{dialed, c} {
		if got := end.Path().Kind; got != kind {
			b.Fatalf("the path is %v, want %v", got, kind)
		}
	}
	return benchEnds{from: dialed.Conn, to: c.Conn}
}

// benchTLS sends b.N MiB over TLS, through a program that copies TCP.
func benchTLS(b *testing.B) {
	host := benchHost(b).String()
	identity, err := NewIdentity()
	if err != nil {
		b.Fatal(err)
	}
	target, err := tls.Listen("tcp4", net.JoinHostPort(host, "0"), &tls.Config{Certificates: []tls.Certificate{identity.cert}})
	if err != nil {
		b.Fatal(err)
	}
	defer target.Close()
	middle, err := net.Listen("tcp4", net.JoinHostPort(host, "0"))
	if err != nil {
		b.Fatal(err)
	}
	defer middle.Close()
	go copyTCP(middle, target.Addr().String())
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := target.Accept()
		accepted <- c
	}()
	conn, err := net.Dial("tcp4", middle.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	from := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	defer from.Close()
	chunk := make([]byte, benchChunk)
	received := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.Discard, <-accepted, int64(b.N+1)*benchChunk)
		received <- err
	}()
	if _, err := from.Write(chunk); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(benchChunk)
	b.ResetTimer()
	for range b.N {
		if _, err := from.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-received; err != nil {
		b.Fatal(err)
	}
}

// copyTCP copies the first connection to a target, in userspace, as programs do that look at the
// bytes.
func copyTCP(l net.Listener, target string) {
	from, err := l.Accept()
	if err != nil {
		return
	}
	defer from.Close()
	to, err := net.Dial("tcp4", target)
	if err != nil {
		return
	}
	defer to.Close()
	// Not io.Copy between the connections, which would not leave the kernel (splice).
	go io.Copy(struct{ io.Writer }{from}, struct{ io.Reader }{to})
	_, _ = io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{from})
}

// TestTunnelByTheSystem connects two peers by sockets of the system, for whom the relay listens
// for TCP alone.
func TestTunnelByTheSystem(t *testing.T) {
	loopback := net.IPv4(127, 0, 0, 1)
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: loopback})
	if err != nil {
		t.Fatal(err)
	}
	server, err := relay.New(nil, udp)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Run(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.ServeTCP(tcp) }()
	pin, err := ParsePeerID(server.Pin())
	if err != nil {
		t.Fatal(err)
	}
	conf := &Config{Relay: Relay{Addr: tcp.Addr().String(), Token: server.Token(), Pin: pin}, Policy: RelayOnly}
	dialer, err := NewEndpoint(conf)
	if err != nil {
		t.Fatal(err)
	}
	accepter, err := NewEndpoint(conf)
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan *Conn, 1)
	a, err := dialer.Dial(t.Context(), accepter.ID(), &DialConfig{Deliver: func(ctx context.Context, o Offer) error {
		c, err := accepter.AcceptOffer(ctx, o)
		accepted <- c
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
	b := <-accepted
	if err := errors.Join(pass(a, b, random(1<<20)), pass(b, a, random(100_000))); err != nil {
		t.Error(err)
	}
	if p, at := a.Path(), netip.MustParseAddrPort(tcp.Addr().String()); p.Kind != Tunneled || p.Remote != at {
		t.Errorf("path %v, want a tunnel to %v", p, at)
	}
	if err := errors.Join(dialer.Close(), accepter.Close(), server.Close()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, relay.ErrClosed) {
		t.Errorf("ServeTCP: %v", err)
	}
}
