package sni

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestClose checks that Close resets connections in every state and can be repeated, and
// that Run returns ErrClosed.
func TestClose(t *testing.T) {
	u := newUpstream(t)
	s := newServer(t, &Config{Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{u.addr()}}}})
	client, upstream := open(t, s, u, "a.test")
	waiting := dial(t, s)
	nettest.Eventually(t, "a client", func() bool { return s.Stats().Waiting == 1 })
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	wantReset(t, "the client", client)
	wantReset(t, "the upstream", upstream)
	wantReset(t, "a client without ClientHello", waiting)
	if err := s.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run after Close: %v", err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown after Close: %v", err)
	}
	if st := s.Stats(); st.Failed[ServerClosed] != 1 {
		t.Errorf("got %+v", st)
	}
}

// TestShutdown checks that Shutdown refuses new connections and lets the others end.
func TestShutdown(t *testing.T) {
	u := newUpstream(t)
	s := newServer(t, &Config{Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{u.addr()}}}})
	client, upstream := open(t, s, u, "a.test")
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(context.Background()) }()
	nettest.Eventually(t, "the listener's end", func() bool {
		c, err := net.Dial("tcp", s.Addr().String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if _, err := io.WriteString(client, "last"); err != nil {
		t.Fatal(err)
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(upstream); err != nil || string(got) != "last" {
		t.Errorf("got %q, %v", got, err)
	}
	select {
	case err := <-down:
		t.Fatalf("Shutdown has not waited: %v", err)
	default:
	}
	upstream.Close()
	if err := <-down; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client got %v, want the end", err)
	}
}

// TestShutdownTimeout checks that connections are reset when the context of Shutdown ends.
func TestShutdownTimeout(t *testing.T) {
	u := newUpstream(t)
	s := newServer(t, &Config{Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{u.addr()}}}})
	client, _ := open(t, s, u, "a.test")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	wantReset(t, "the client", client)
}

// TestRunContext checks that Run ends with its context, and that the server is closed then.
func TestRunContext(t *testing.T) {
	s, err := Listen(t.Context(), "tcp", "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error)
	go func() { ran <- s.Run(ctx) }()
	c := dial(t, s)
	nettest.Eventually(t, "a client", func() bool { return s.Stats().Waiting == 1 })
	cancel()
	if err := <-ran; err != nil {
		t.Errorf("got %v", err)
	}
	wantReset(t, "the client", c)
	if _, err := net.Dial("tcp", s.Addr().String()); err == nil {
		t.Error("the listener is open")
	}
}

// TestCloseWhileDialing checks that Close ends the dialing of an upstream that does not
// answer.
func TestCloseWhileDialing(t *testing.T) {
	dialing := make(chan struct{})
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		select {
		case dialing <- struct{}{}:
		case <-ctx.Done():
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	s := newServer(t, &Config{DialTimeout: time.Hour, Resolver: resolver, Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{"server.test:443"}}}})
	c := dial(t, s)
	if _, err := c.Write(helloOf(t, "a.test")); err != nil {
		t.Fatal(err)
	}
	<-dialing
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wantReset(t, "the client", c)
}
