package ports

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// ends are the two ends of a forwarded TCP connection.
type ends struct {
	*testing.T
	client, server *net.TCPConn
	session        *Session // of the client's side
}

// forwarded connects a client to a server through a pair of sessions, from x to y, or with
// remote through a listener of y.
func (l *lab) forwarded(t *testing.T, remote bool) *ends {
	t.Helper()
	accepted := make(chan *net.TCPConn, 1)
	spec := Spec{Network: "tcp", Target: l.server(func(c *net.TCPConn) { accepted <- c })}
	a, _ := l.sessions(l.conf(), l.conf())
	var addr string
	if remote {
		addr = l.listenAtPeer(a, spec)
	} else {
		addr = l.listen(spec, l.conf(), fixed{a})
	}
	e := &ends{T: t, client: l.client("tcp", addr).(*net.TCPConn), session: a}
	e.write(e.client, "hello")
	select {
	case e.server = <-accepted:
	case <-time.After(patience):
		t.Fatal("the server got no connection")
	}
	if err := e.server.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.server.Close() })
	e.want(e.server, "hello")
	e.write(e.server, "welcome")
	e.want(e.client, "welcome")
	return e
}

// listenAtPeer lets the other side listen, and returns its address.
func (l *lab) listenAtPeer(s *Session, spec Spec) string {
	l.Helper()
	spec.Listen = "127.0.0.1:0"
	ready := make(chan string, 1)
	l.runs(func(ctx context.Context) {
		_ = s.ListenAtPeer(ctx, spec, func(addr string) { ready <- addr })
		close(ready)
	})
	addr := <-ready
	if addr == "" {
		l.Fatal("the peer does not listen")
	}
	return addr
}

func (e *ends) write(c *net.TCPConn, s string) {
	e.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		e.Fatal(err)
	}
}

func (e *ends) want(c *net.TCPConn, s string) {
	e.Helper()
	b := make([]byte, len(s))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != s {
		e.Fatalf("got %q, %v, want %q", b, err, s)
	}
}

// wantEnd reads the end: io.EOF, or a reset.
func (e *ends) wantEnd(c *net.TCPConn, want error) {
	e.Helper()
	n, err := c.Read(make([]byte, 1))
	if n != 0 || !errors.Is(err, want) {
		e.Fatalf("got %d bytes, %v, want %v", n, err, want)
	}
}

func (e *ends) fin(c *net.TCPConn) {
	e.Helper()
	if err := c.CloseWrite(); err != nil {
		e.Fatal(err)
	}
}

// reset closes a connection with a reset.
func (e *ends) reset(c *net.TCPConn) {
	e.Helper()
	if err := errors.Join(c.SetLinger(0), c.Close()); err != nil {
		e.Fatal(err)
	}
}

// TestEnds checks that ends of one side arrive at the other, in every order.
func TestEnds(t *testing.T) {
	for name, test := range map[string]func(*ends){
		"client first": func(e *ends) {
			e.fin(e.client)
			e.wantEnd(e.server, io.EOF)
			e.write(e.server, "more")
			e.want(e.client, "more")
			e.fin(e.server)
			e.wantEnd(e.client, io.EOF)
		},
		"server first": func(e *ends) {
			e.fin(e.server)
			e.wantEnd(e.client, io.EOF)
			e.write(e.client, "more")
			e.want(e.server, "more")
			e.fin(e.client)
			e.wantEnd(e.server, io.EOF)
		},
		"both": func(e *ends) {
			e.fin(e.server)
			e.fin(e.client)
			e.wantEnd(e.client, io.EOF)
			e.wantEnd(e.server, io.EOF)
		},
		"client resets": func(e *ends) {
			e.reset(e.client)
			e.wantEnd(e.server, syscall.ECONNRESET)
		},
		"server resets": func(e *ends) {
			e.reset(e.server)
			e.wantEnd(e.client, syscall.ECONNRESET)
		},
		"client resets a download": func(e *ends) {
			e.upload(e.server)
			e.reset(e.client)
			e.wantReset(e.server)
		},
		"server resets an upload": func(e *ends) {
			e.upload(e.client)
			e.reset(e.server)
			e.wantReset(e.client)
		},
		"client resets after its FIN": func(e *ends) {
			e.fin(e.client)
			e.wantEnd(e.server, io.EOF)
			e.reset(e.client)
			e.writesUntilReset(e.server)
		},
		"server resets after its FIN": func(e *ends) {
			e.fin(e.server)
			e.wantEnd(e.client, io.EOF)
			e.reset(e.server)
			e.writesUntilReset(e.client)
		},
	} {
		for way, remote := range map[string]bool{"here": false, "at the peer": true} {
			t.Run(name+"/"+way, func(t *testing.T) {
				t.Parallel()
				test(newLab(t).forwarded(t, remote))
			})
		}
	}
}

// wantReset waits for the reset of a connection, of which the error may be another call's.
func (e *ends) wantReset(c *net.TCPConn) {
	e.Helper()
	_, err := c.Read(make([]byte, 1))
	known := isClosed(c) || runtime.GOOS != "linux"
	if !errors.Is(err, syscall.ECONNRESET) && !(errors.Is(err, io.EOF) && known) {
		e.Fatalf("got %v, want a reset", err)
	}
}

// upload writes until the other end's reset has arrived, beside the test. The error is the writer's.
func (e *ends) upload(c *net.TCPConn) {
	e.Helper()
	var writing sync.WaitGroup
	writing.Go(func() {
		for b := make([]byte, 64<<10); ; {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	})
	e.Cleanup(func() { c.Close(); writing.Wait() })
	other := map[*net.TCPConn]*net.TCPConn{e.client: e.server, e.server: e.client}[c]
	if _, err := io.ReadFull(other, make([]byte, 1<<20)); err != nil { // the transfer runs
		e.Fatal(err)
	}
}

// writesUntilReset writes until the other end's reset has arrived.
func (e *ends) writesUntilReset(c *net.TCPConn) {
	e.Helper()
	for {
		_, err := c.Write([]byte("x"))
		if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
			return
		}
		if err != nil {
			e.Fatal(err)
		}
	}
}

// TestConnectionEnds checks that a TCP connection is reset, and does not seem to be complete, when
// the connection between the peers ends.
func TestConnectionEnds(t *testing.T) {
	e := newLab(t).forwarded(t, false)
	if err := e.session.conn.CloseWithError(0, ""); err != nil {
		t.Fatal(err)
	}
	e.wantEnd(e.client, syscall.ECONNRESET)
	e.wantEnd(e.server, syscall.ECONNRESET)
}

// TestManyConnections sends through many connections at once.
func TestManyConnections(t *testing.T) {
	l := newLab(t)
	a, _ := l.sessions(l.conf(), l.conf())
	addr := l.listen(Spec{Network: "tcp", Target: l.server(echo)}, l.conf(), fixed{a})
	var clients sync.WaitGroup
	for i := range 200 {
		c := l.client("tcp", addr).(*net.TCPConn)
		data := make([]byte, 1+rand.IntN(32<<10))
		for j := range data {
			data[j] = byte(i + j)
		}
		clients.Go(func() {
			go func() {
				_, _ = c.Write(data) // the answer shows it
				_ = c.CloseWrite()
			}()
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
				t.Errorf("got %d bytes of %d, %v", len(got), len(data), err)
			}
		})
	}
	clients.Wait()
}

// TestRefusals checks what the side that asks is told.
func TestRefusals(t *testing.T) {
	l := newLab(t)
	y := l.conf()
	y.Targets, y.Listen = nil, nil
	taken := l.server(echo)
	if err := errors.Join(y.Targets.Add("localhost:1"), y.Listen.Add("localhost:2"), y.Listen.Add(taken)); err != nil {
		t.Fatal(err)
	}
	a, _ := l.sessions(l.conf(), y)
	for name, tc := range map[string]struct {
		err  func() error
		want string
	}{
		"connection refused": {func() error { return l.forwardOne(a, "127.0.0.1:1") },
			"the peer: dial 127.0.0.1:1: connection refused"},
		"target not permitted": {func() error { return l.forwardOne(a, "127.0.0.1:3") },
			"the peer: 127.0.0.1:3 is not permitted"},
		"address not permitted": {func() error { return a.ListenAtPeer(t.Context(), Spec{"tcp", "0.0.0.0:2", "127.0.0.1:1"}, nil) },
			"the peer: 0.0.0.0:2 is not permitted"},
		"UDP not permitted": {func() error { return a.ListenAtPeer(t.Context(), Spec{"udp", "127.0.0.1:3", "127.0.0.1:1"}, nil) },
			"the peer: 127.0.0.1:3 is not permitted"},
		"unknown network": {func() error { return a.ListenAtPeer(t.Context(), Spec{"sctp", "127.0.0.1:2", "127.0.0.1:1"}, nil) },
			`the peer: unknown network "sctp"`},
		"port taken": {func() error { return a.ListenAtPeer(t.Context(), Spec{"tcp", taken, "127.0.0.1:1"}, nil) },
			"the peer: listen " + taken + ": address already in use"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := tc.err(); err == nil || err.Error() != tc.want {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

// forwardOne forwards one connection, whose client must see a reset, and returns the error.
func (l *lab) forwardOne(s *Session, target string) error {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer listener.Close()
	client := l.client("tcp", listener.Addr().String())
	c, err := listener.AcceptTCP()
	if err != nil {
		return err
	}
	err = s.forwardTCP(l.Context(), c, target)
	if _, readErr := client.Read(make([]byte, 1)); !errors.Is(readErr, syscall.ECONNRESET) {
		l.Errorf("the client got %v, want a reset", readErr)
	}
	return err
}

// TestStalled checks that streams whose data nobody reads do not stop others.
func TestStalled(t *testing.T) {
	a, _ := newLab(t).connect()
	for i := range 16 {
		stream, err := a.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.SetWriteDeadline(time.Now().Add(patience))
		if _, err := stream.Write(make([]byte, 256<<10)); err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
}
