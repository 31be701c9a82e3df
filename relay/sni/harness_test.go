package sni

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/pki"
)

// patience is the time after which a test gives up.
const patience = time.Minute

// newServer runs a server on loopback until the test ends, and checks then that each
// connection has been counted once.
func newServer(t *testing.T, cfg *Config) *Server {
	t.Helper()
	s, err := Listen(t.Context(), "tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	if testLimits != nil {
		s.short = *testLimits
	}
	runServer(t, s)
	return s
}

// testLimits, if set, replaces the limits of short connections of new servers.
var testLimits *shortLimits

// runServer runs a server until the test ends, with the checks of newServer.
func runServer(t *testing.T, s *Server) {
	t.Helper()
	ran := make(chan error, 1)
	go func() { ran <- s.Run(t.Context()) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-ran; err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("Run: %v", err)
		}
		st := s.Stats()
		sum := st.Relayed
		for _, n := range st.Failed {
			sum += n
		}
		if sum != st.Accepted || st.Open != 0 || st.Waiting != 0 {
			t.Errorf("after Close: %+v", st)
		}
		if len(s.conns.sources) > 0 || len(s.room) > 0 {
			t.Errorf("after Close %d sources and %d places are left", len(s.conns.sources), len(s.room))
		}
		for _, r := range s.Routes() {
			if n := r.pool.active.Load(); n != 0 {
				t.Errorf("after Close route %q has %d connections", r.name(), n)
			}
		}
	})
}

// dial connects to a server.
func dial(t *testing.T, s *Server) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// server is an upstream.
type server struct {
	*testing.T
	net.Listener
	conns chan *net.TCPConn
}

// newUpstream opens a listener. The test gets its connections from accept.
func newUpstream(t *testing.T) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return newUpstreamOn(t, l)
}

// newUpstreamOn makes an upstream of a listener.
func newUpstreamOn(t *testing.T, l net.Listener) *server {
	t.Helper()
	s := &server{t, l, make(chan *net.TCPConn, 1000)}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := l.Accept()
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err == nil:
				s.conns <- c.(*net.TCPConn)
			default:
				time.Sleep(time.Millisecond) // a test has taken the descriptors away
			}
		}
	})
	t.Cleanup(func() {
		l.Close()
		accepting.Wait()
		close(s.conns)
		for c := range s.conns {
			c.Close()
		}
	})
	return s
}

func (s *server) addr() string { return s.Listener.Addr().String() }

// accept returns the next connection.
func (s *server) accept() *net.TCPConn {
	s.Helper()
	select {
	case c := <-s.conns:
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			s.Fatal(err)
		}
		s.Cleanup(func() { c.Close() })
		return c
	case <-time.After(patience):
		s.Fatal("no connection")
		return nil
	}
}

// newTLSUpstream starts a TLS server that sends its name and then what it gets. It returns
// its address.
func newTLSUpstream(t *testing.T, name string, alpn ...string) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.SelfSigned(key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: alpn})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				if _, err := io.WriteString(c, name+"\n"); err == nil {
					_, _ = io.Copy(c, c) // ends with the client
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

// nameBehind makes a TLS connection and returns the name of the server behind it.
func nameBehind(t *testing.T, s *Server, conf *tls.Config) (string, error) {
	t.Helper()
	conf = conf.Clone()
	conf.InsecureSkipVerify = true
	c := tls.Client(dial(t, s), conf)
	defer c.Close()
	name := make([]byte, 100)
	n, err := c.Read(name)
	if err != nil {
		return "", err
	}
	return string(name[:n-1]), nil
}

// helloOf returns the bytes of a ClientHello with a server name.
func helloOf(t testing.TB, name string) []byte {
	t.Helper()
	here, there := net.Pipe()
	defer there.Close()
	go func() {
		_ = tls.Client(here, &tls.Config{ServerName: name}).Handshake() // fails when the test has its bytes
		here.Close()
	}()
	b := make([]byte, 32<<10)
	n, err := there.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// open makes a connection to an upstream through the server, and returns both ends after
// the ClientHello has arrived.
func open(t *testing.T, s *Server, u *server, name string) (client, upstream *net.TCPConn) {
	t.Helper()
	hello := helloOf(t, name)
	client = dial(t, s)
	if _, err := client.Write(hello); err != nil {
		t.Fatal(err)
	}
	upstream = u.accept()
	if _, err := io.ReadFull(upstream, make([]byte, len(hello))); err != nil {
		t.Fatal(err)
	}
	return client, upstream
}
