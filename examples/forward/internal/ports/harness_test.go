package ports

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/p2p"
	"github.com/quicway/quicway/relay"
)

// patience is how long a test waits for what must happen, also on a host that is busy.
const patience = 2 * time.Minute

// lab is two endpoints and their relay.
type lab struct {
	testing.TB
	x, y *p2p.Endpoint
}

func newLab(tb testing.TB) *lab {
	tb.Helper()
	server, err := relay.Listen(tb.Context(), "udp", "127.0.0.1:0", nil)
	if err != nil {
		tb.Fatal(err)
	}
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = server.Run(context.Background()) // until Close
	}()
	tb.Cleanup(func() { server.Close(); <-ran })
	pin, err := p2p.ParsePeerID(server.Pin())
	if err != nil {
		tb.Fatal(err)
	}
	l := &lab{TB: tb}
	conf := &quic.Config{}
	SetQUIC(conf)
	for _, e := range []**p2p.Endpoint{&l.x, &l.y} {
		*e, err = p2p.NewEndpoint(&p2p.Config{
			Relay: p2p.Relay{Addr: server.Addr().String(), Token: server.Token(), Pin: pin},
			QUIC:  conf, Policy: p2p.RelayOnly, DisablePortMapping: true,
		})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { (*e).Close() })
	}
	return l
}

// conf permits all.
func (l *lab) conf() *Config {
	c := &Config{UDPIdle: time.Minute, Log: slog.New(slog.NewTextHandler(l.Output(), nil))}
	for _, p := range []*Permits{&c.Targets, &c.Listen} {
		if err := p.Add("*:*"); err != nil {
			l.Fatal(err)
		}
	}
	return c
}

// connect connects the two sides.
func (l *lab) connect() (a, b *p2p.Conn) {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.Context(), patience)
	defer cancel()
	accepted := make(chan error, 1)
	go func() {
		var err error
		b, err = l.y.Accept(ctx)
		accepted <- err
	}()
	a, err := l.x.Dial(ctx, l.y.ID(), nil)
	if err != nil {
		l.Fatal(err)
	}
	if err := <-accepted; err != nil {
		l.Fatal(err)
	}
	return a, b
}

// sessions runs a session on each side. The test ends them.
func (l *lab) sessions(x, y *Config) (a, b *Session) {
	l.Helper()
	c, d := l.connect()
	a, b = NewSession(c, x), NewSession(d, y)
	l.runs(func(ctx context.Context) { _ = a.Run(ctx) })
	l.runs(func(ctx context.Context) { _ = b.Run(ctx) })
	return a, b
}

// runs runs what ends when its context is done, at the end of the test.
func (l *lab) runs(run func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		run(ctx)
	}()
	l.Cleanup(func() { cancel(); <-ran })
}

// listen forwards from a free port of this host, and returns the port's address.
func (l *lab) listen(spec Spec, conf *Config, s Sessions) string {
	l.Helper()
	spec.Listen = "127.0.0.1:0"
	listener, err := Listen(spec, conf)
	if err != nil {
		l.Fatal(err)
	}
	l.runs(func(ctx context.Context) { listener.Run(ctx, s) })
	return listener.Addr().String()
}

// server accepts TCP connections, and calls serve with each.
func (l *lab) server(serve func(*net.TCPConn)) (addr string) {
	l.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.AcceptTCP()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return listener.Addr().String()
}

// client connects to an address.
func (l *lab) client(network, addr string) net.Conn {
	l.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		l.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close() })
	return c
}

// echo sends back what it reads, and then closes.
func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	_ = c.Close()
}
