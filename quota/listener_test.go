package quota

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/test/nettest"
)

// returning is a client that has made a connection before.
type returning struct {
	*client
	tls  *tls.Config
	quic *quic.Config
}

// comeBack makes a client get a session ticket, and a token if it keeps tokens.
func (l *lab) comeBack(ip string, tokens quic.TokenStore) *returning {
	l.Helper()
	r := &returning{l.client(ip),
		&tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}, ServerName: "server", ClientSessionCache: tls.NewLRUClientSessionCache(1)},
		&quic.Config{TokenStore: tokens}}
	conn, err := r.dialEarly()
	if err != nil {
		l.Fatal(err)
	}
	if _, err := get(context.Background(), conn); err != nil {
		l.Fatal(err)
	}
	time.Sleep(time.Second)
	conn.CloseWithError(0, "")
	time.Sleep(time.Second)
	wantLive(l.TB, l.c, 0, 0)
	return r
}

func (r *returning) dialEarly() (*quic.Conn, error) {
	return r.transport.DialEarly(context.Background(), net.UDPAddrFromAddrPort(addr(serverAddr)), r.tls, r.quic)
}

// getEarly makes a request in 0-RTT (RFC 9001 §4.6).
func getEarly(conn *quic.Conn) error {
	req, err := http.NewRequest(http3.MethodGet0RTT, "https://server/", nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	resp, err := (&http3.Transport{}).NewClientConn(conn).RoundTrip(req.WithContext(ctx))
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// TestNothingServedBeyondQuota checks that a connection that has no room when its handshake
// is complete is not served before either, though it has made a request in 0-RTT.
func TestNothingServedBeyondQuota(t *testing.T) {
	runLab(t, &Config{Source: Limits{Connections: 1}}, func(l *lab) {
		r := l.comeBack("198.51.100.1", nil)
		defer r.close()
		conn, err := r.dialEarly()
		if err != nil {
			t.Fatal(err)
		}
		failed := make(chan error, 1)
		go func() { failed <- getEarly(conn) }()
		time.Sleep(7 * time.Millisecond) // its first flight is there
		synctest.Wait()
		wantLive(t, l.c, 0, 1)
		defer wantAdmit(t, l.c, "198.51.100.1:9", true, PassNew).Release()
		var closed *quic.ApplicationError
		if err := <-failed; !errors.As(context.Cause(conn.Context()), &closed) || closed.ErrorCode != excessiveLoad {
			t.Errorf("got %v, and closed by %v, want %#x", err, context.Cause(conn.Context()), excessiveLoad)
		}
		if !conn.ConnectionState().Used0RTT {
			t.Error("there was no 0-RTT")
		}
		if n := l.served[r.conn.LocalAddr().String()]; n != 1 {
			t.Errorf("served %d requests, want the one of the first connection", n)
		}
	})
}

// TestTokenDoesNotValidate checks that a client with the token of an earlier connection is
// not served before its handshake is complete: another owner of the address may have got
// that token.
func TestTokenDoesNotValidate(t *testing.T) {
	for _, tc := range []struct {
		name   string
		conf   Config
		tokens quic.TokenStore
		want   int // requests that are served early
	}{
		{"none", Config{}, nil, 0},
		{"token", Config{}, quic.NewLRUTokenStore(1, 1), 0},
		{"dry run", Config{DryRun: true}, nil, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			runLab(t, &tc.conf, func(l *lab) {
				r := l.comeBack("198.51.100.1", tc.tokens)
				defer r.close()
				conn, err := r.dialEarly()
				if err != nil {
					t.Fatal(err)
				}
				if err := getEarly(conn); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Second)
				wantLive(t, l.c, 1, 0)
				if l.early != tc.want || len(l.served) != 1 {
					t.Errorf("%d of %v requests were served early, want %d", l.early, l.served, tc.want)
				}
			})
		})
	}
}

// listen makes a listener with a transport of its own.
func (l *lab) listen(at string) (_ *Listener, done func()) {
	l.Helper()
	conn := l.net.Listen(at)
	tr, err := l.c.Transport(&quic.Transport{Conn: conn})
	if err != nil {
		l.Fatal(err)
	}
	ln, err := tr.ListenEarly(l.tls, nil)
	if err != nil {
		l.Fatal(err)
	}
	return ln, func() { tr.Close(); conn.Close(); synctest.Wait() }
}

// dialTo makes a connection to a listener other than the lab's.
func (c *client) dialTo(at string) (*quic.Conn, error) {
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}}
	return c.transport.Dial(context.Background(), net.UDPAddrFromAddrPort(addr(at)), conf, nil)
}

// TestSlowHandshakeDelaysNoOther checks that a client that does not complete its handshake
// does not delay the accepting of others.
func TestSlowHandshakeDelaysNoOther(t *testing.T) {
	const at = "192.0.2.2:443"
	runLab(t, nil, func(l *lab) {
		ln, done := l.listen(at)
		defer done()
		quick := l.client("198.51.100.2")
		defer quick.close()
		for range 10 {
			slow := l.client("198.51.100.1")
			defer slow.close()
			go slow.dialTo(at)
			time.Sleep(7 * time.Millisecond)
			slow.conn.Close()
		}
		go quick.dialTo(at)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		conn, err := ln.Accept(ctx)
		if err != nil || conn.RemoteAddr().String() != quick.conn.LocalAddr().String() {
			t.Fatalf("accepted %v, %v", conn, err)
		}
		wantLive(t, l.c, 1, 10)
		if _, err := ln.Accept(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want that of the context", err)
		}
	})
}

// TestListenerCloses checks that blocked calls return when the listener is closed, and that
// connections that were not accepted are closed.
func TestListenerCloses(t *testing.T) {
	const at = "192.0.2.2:443"
	runLab(t, nil, func(l *lab) {
		ln, done := l.listen(at)
		defer done()
		if ln.Addr().String() != at {
			t.Errorf("it is at %v", ln.Addr())
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := ln.Accept(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want that of the context", err)
		}
		c := l.client("198.51.100.1")
		defer c.close()
		conn, err := c.dialTo(at)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		wantLive(t, l.c, 1, 0)
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
		for range 2 {
			if _, err := ln.Accept(context.Background()); !errors.Is(err, quic.ErrServerClosed) {
				t.Errorf("got %v, want ErrServerClosed", err)
			}
		}
		time.Sleep(time.Second)
		wantLive(t, l.c, 0, 0)
		if conn.Context().Err() == nil {
			t.Error("the client has not been closed")
		}
	})
}

// TestCloseWithoutAccept checks that closing the listener closes the connections that wait for
// Accept, even if that was never called.
func TestCloseWithoutAccept(t *testing.T) {
	const at = "192.0.2.2:443"
	runLab(t, nil, func(l *lab) {
		ln, done := l.listen(at)
		defer done()
		c := l.client("198.51.100.1")
		defer c.close()
		conn, err := c.dialTo(at)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		wantLive(t, l.c, 0, 0)
		if conn.Context().Err() == nil {
			t.Error("the client has not been closed")
		}
		if _, err := ln.Accept(context.Background()); !errors.Is(err, quic.ErrServerClosed) {
			t.Errorf("got %v, want ErrServerClosed", err)
		}
	})
}

// TestCloseWaitsForNoHandshake checks that closing the listener does not wait for a client
// that does not complete its handshake.
func TestCloseWaitsForNoHandshake(t *testing.T) {
	const at = "192.0.2.2:443"
	runLab(t, nil, func(l *lab) {
		ln, done := l.listen(at)
		defer done()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := ln.Accept(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want that of the context", err)
		}
		slow := l.client("198.51.100.1")
		defer slow.close()
		go slow.dialTo(at)
		time.Sleep(7 * time.Millisecond)
		slow.conn.Close()
		synctest.Wait()
		wantLive(t, l.c, 0, 1)
		began := time.Now()
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
		if waited := time.Since(began); waited > 0 { // by the fake clock
			t.Errorf("closing took %v, want none: it has waited for a handshake", waited)
		}
		synctest.Wait()
		wantLive(t, l.c, 0, 0)
	})
}

// TestOnlyHandshakeEstablishes checks that an attempt of a transport stays half open until its
// handshake is complete, however long that takes, and that another one does not.
func TestOnlyHandshakeEstablishes(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		c := mustNew(t, nil)
		enter := func(from string) {
			info := &quic.ClientInfo{RemoteAddr: net.UDPAddrFromAddrPort(addr(from))}
			if _, err := (&hooks{c: c}).ConnContext(t.Context(), info); err != nil {
				t.Fatal(err)
			}
		}
		enter("192.0.2.1:1")
		mustAdmit(t, c, "192.0.2.1:2")
		wantLive(t, c, 0, 2)
		time.Sleep(time.Minute)
		wantLive(t, c, 1, 1)
	})
}

// TestEstablishedAtOnce checks that, with a listener, a connection counts as one as soon as
// its handshake is complete.
func TestEstablishedAtOnce(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		c := l.client("198.51.100.1")
		defer c.close()
		if _, err := c.dial(context.Background()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		wantLive(t, l.c, 1, 0)
	})
}
