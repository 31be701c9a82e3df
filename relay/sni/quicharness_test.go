package sni

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/pki"
)

// newQUICServer runs a server of QUIC on loopback until the test ends, and checks then that
// each attempt has been counted once and that nothing is left.
func newQUICServer(t testing.TB, cfg *Config) *Server {
	t.Helper()
	s, err := Listen(t.Context(), "udp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- s.Run(t.Context()) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-ran; err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("Run: %v", err)
		}
		checkEmpty(t, s)
	})
	return s
}

// checkEmpty checks a server that is closed.
func checkEmpty(t testing.TB, s *Server) {
	t.Helper()
	st := s.Stats().QUIC
	sum := st.Relayed
	for _, n := range st.Failed {
		sum += n
	}
	if sum != st.Accepted || st.Flows != 0 || st.Waiting != 0 {
		t.Errorf("after Close: %+v", st)
	}
	table := s.quic.table
	if len(table.flows)+len(table.sources)+len(table.ids)+table.waiting.Len()+table.confirmed > 0 {
		t.Errorf("after Close the table has %d flows, %d sources, %d IDs, %d confirmed", len(table.flows), len(table.sources), len(table.ids), table.confirmed)
	}
	for length, n := range table.lengths {
		if n != 0 {
			t.Errorf("after Close %d IDs of %d bytes are counted", n, length)
		}
	}
	for _, r := range s.Routes() {
		if n := r.pool.active.Load(); n != 0 {
			t.Errorf("after Close route %q has %d connections", r.name(), n)
		}
		for _, u := range r.pool.upstreams {
			if n := u.active.Load(); n != 0 {
				t.Errorf("after Close upstream %s has %d connections", u.address, n)
			}
		}
	}
}

// udpConn opens a UDP socket on loopback.
func udpConn(t testing.TB, address string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// quicUpstream is a QUIC server. On each stream it sends its name, and then what it gets.
type quicUpstream struct {
	transport *quic.Transport
	conns     chan *quic.Conn
}

// newQUICUpstream starts a QUIC server. change may change its transport and configuration.
func newQUICUpstream(t testing.TB, name string, change func(*quic.Transport, *quic.Config)) *quicUpstream {
	t.Helper()
	u := &quicUpstream{transport: &quic.Transport{Conn: udpConn(t, "127.0.0.1:0")}, conns: make(chan *quic.Conn, 1000)}
	conf := &quic.Config{Allow0RTT: true, MaxIdleTimeout: patience}
	if change != nil {
		change(u.transport, conf)
	}
	l, err := u.transport.ListenEarly(serverTLS(t, "test"), conf)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			u.conns <- conn
			running.Go(func() { echo(conn, name) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		u.transport.Close()
		running.Wait()
	})
	return u
}

func (u *quicUpstream) addr() string { return u.transport.Conn.LocalAddr().String() }

// echo serves the streams of a connection until it ends.
func echo(conn *quic.Conn, name string) {
	for {
		stream, err := conn.AcceptStream(context.Background())
		if err != nil {
			return
		}
		go func() {
			defer stream.Close()
			if _, err := io.WriteString(stream, name+"\n"); err == nil {
				_, _ = io.Copy(stream, stream)
			}
		}()
	}
}

// serverTLS returns a TLS configuration with a certificate that clients do not check.
func serverTLS(t testing.TB, alpn ...string) *tls.Config {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.SelfSigned(key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: alpn}
}

// clientTLS returns a TLS configuration for a server name.
func clientTLS(name string) *tls.Config {
	return &tls.Config{ServerName: name, NextProtos: []string{"test"}, InsecureSkipVerify: true}
}

// newTransport makes a transport on a socket of its own.
func newTransport(t testing.TB) *quic.Transport {
	t.Helper()
	tr := &quic.Transport{Conn: udpConn(t, "127.0.0.1:0")}
	t.Cleanup(func() { tr.Close() })
	return tr
}

// dialQUIC opens a connection to a server.
func dialQUIC(t testing.TB, tr *quic.Transport, s *Server, name string) *quic.Conn {
	t.Helper()
	conn, err := tryQUIC(t, tr, s.Addr(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func tryQUIC(t testing.TB, tr *quic.Transport, to netip.AddrPort, name string, conf *quic.Config) (*quic.Conn, error) {
	t.Helper()
	if conf == nil {
		conf = &quic.Config{MaxIdleTimeout: patience}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return tr.Dial(ctx, net.UDPAddrFromAddrPort(to), clientTLS(name), conf)
}

// ask sends bytes on a new stream, checks that they come back, and returns the name of the
// upstream.
func ask(t testing.TB, conn *quic.Conn, size int) string {
	t.Helper()
	name, err := tryAsk(conn, size)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func tryAsk(conn *quic.Conn, size int) (string, error) {
	stream, err := conn.OpenStream()
	if err != nil {
		return "", err
	}
	if err := stream.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	data := make([]byte, size)
	_, _ = rand.Read(data) // never fails
	sent := make(chan error, 1)
	go func() {
		_, err := stream.Write(data)
		sent <- errors.Join(err, stream.Close())
	}()
	got, err := io.ReadAll(stream)
	if err := errors.Join(err, <-sent); err != nil {
		return "", err
	}
	name, rest, _ := bytes.Cut(got, []byte("\n"))
	if !bytes.Equal(rest, data) {
		return "", errors.New("other bytes came back")
	}
	return string(name), nil
}

// routesTo returns routes of names to servers, of which each pair is one.
func routesTo(pairs ...string) (routes []*Route) {
	for i := 0; i < len(pairs); i += 2 {
		routes = append(routes, &Route{Names: []string{pairs[i]}, Upstreams: []string{pairs[i+1]}})
	}
	return routes
}
