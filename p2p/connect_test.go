package p2p

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestTransfer checks that data arrives on networks with loss, delay and reordering.
func TestTransfer(t *testing.T) {
	const ms = time.Millisecond
	for name, conditions := range map[string]nettest.Conditions{
		"perfect":    {Delay: 10 * ms},
		"loss 1%":    {Delay: 10 * ms, Loss: 0.01},
		"loss 5%":    {Delay: 10 * ms, Loss: 0.05},
		"reordering": {Delay: 10 * ms, Jitter: 5 * ms},
		"duplicates": {Delay: 10 * ms, Duplicate: 0.1},
		"far":        {Delay: 150 * ms},
		"all":        {Delay: 40 * ms, Jitter: 10 * ms, Loss: 0.02, Duplicate: 0.02},
		"MTU 1280":   {Delay: 10 * ms, MTU: 1232},
	} {
		t.Run(name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				l.net.Set(conditions)
				a, b := l.connect(l.host(nil), l.host(nil))
				l.exchange(a, b, 1<<20)
				l.alive(a, b)
			})
		})
	}
}

// TestMailbox checks that peers that know only each other's IDs and the relay can
// connect.
func TestMailbox(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.host(nil), l.host(nil)
		accepted := make(chan result, 1)
		go func() {
			c, err := bob.Accept(l.Context())
			accepted <- result{c, err}
		}()
		a, err := alice.Dial(l.Context(), bob.ID(), nil)
		if err != nil {
			l.Fatal(err)
		}
		b := <-accepted
		if b.err != nil {
			l.Fatal(b.err)
		}
		if a.RemoteID() != bob.ID() || b.conn.RemoteID() != alice.ID() {
			l.Error("the peers do not know each other")
		}
		l.exchange(a, b.conn, 100_000)
	})
}

// TestManyConnections checks that one endpoint accepts many connections at the same
// time.
func TestManyConnections(t *testing.T) {
	runLab(t, func(l *lab) {
		const n = 12
		server := l.host(nil)
		done := make(chan error, 2*n)
		for i := range n {
			client := l.host(nil)
			go func() {
				c, err := client.Dial(l.Context(), server.ID(), nil)
				if err == nil {
					err = echoed(c, random(10_000+i))
				}
				done <- err
			}()
		}
		for range n {
			c, err := server.Accept(l.Context())
			if err != nil {
				l.Fatal(err)
			}
			go func() { done <- echo(c) }()
		}
		for range 2 * n {
			if err := <-done; err != nil {
				l.Fatal(err)
			}
		}
		if s := l.server.Stats(); s.Sessions != n {
			l.Errorf("%d sessions, want %d", s.Sessions, n)
		}
	})
}

// echo sends back what it receives on one stream.
func echo(c *Conn) error {
	stream, err := c.AcceptStream(context.Background())
	if err != nil {
		return err
	}
	if _, err := io.Copy(stream, stream); err != nil {
		return err
	}
	return stream.Close()
}

// echoed sends data, and checks that it comes back.
func echoed(c *Conn, data []byte) error {
	stream, err := c.OpenStreamSync(context.Background())
	if err != nil {
		return err
	}
	go func() {
		stream.Write(data)
		stream.Close()
	}()
	got, err := io.ReadAll(stream)
	if err == nil && !bytes.Equal(got, data) {
		err = fmt.Errorf("%d other bytes came back, of %d", len(got), len(data))
	}
	return err
}

// TestManyDialed checks that one endpoint dials many connections at the same time.
func TestManyDialed(t *testing.T) {
	runLab(t, func(l *lab) {
		const n = 12
		client, server := l.host(nil), l.host(nil)
		done := make(chan error, n)
		for range n {
			go func() {
				c, err := client.Dial(l.Context(), server.ID(), nil)
				if err == nil {
					err = echoed(c, random(10_000))
				}
				done <- err
			}()
		}
		for range n {
			c, err := server.Accept(l.Context())
			if err != nil {
				l.Fatal(err)
			}
			go echo(c)
		}
		for range n {
			if err := <-done; err != nil {
				l.Fatal(err)
			}
		}
	})
}

// TestUnknownPeer checks that the dialer need not know the peer's ID if it sets Deliver.
func TestUnknownPeer(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.host(nil), l.host(func(c *Config) { c.Relay = Relay{} })
		offer, dialed := l.offer(alice, PeerID{})
		text := offer.String()
		if strings.ContainsAny(text, " \n") {
			l.Errorf("the offer is more than a word: %q", text)
		}
		got, err := ParseOffer(" " + text + "\n")
		if err != nil {
			l.Fatal(err)
		}
		if _, err := bob.AcceptOffer(l.Context(), got); err != nil {
			l.Fatal(err)
		}
		if r := <-dialed; r.err != nil || r.conn.RemoteID() != bob.ID() {
			l.Errorf("dialed: %v", r.err)
		}
		if got.Dialer() != alice.ID() || got.Relay().Addr != relayAddr || got.Relay().Token != "" {
			l.Errorf("the offer is from %v over %v", got.Dialer(), got.Relay())
		}
	})
}

// TestConfigTLS checks that peers need no certificates if Config.TLS does not require
// them.
func TestConfigTLS(t *testing.T) {
	runLab(t, func(l *lab) {
		identity, err := NewIdentity()
		if err != nil {
			l.Fatal(err)
		}
		own := ownTLS(identity)
		alice := l.host(func(c *Config) { c.TLS = own })
		bob := l.host(func(c *Config) { c.TLS = own; c.Identity = identity })
		offer, dialed := l.offer(alice, PeerID{})
		b, err := bob.AcceptOffer(l.Context(), offer)
		if err != nil {
			l.Fatal(err)
		}
		a := <-dialed
		if a.err != nil {
			l.Fatal(a.err)
		}
		if b.RemoteID() != (PeerID{}) || a.conn.RemoteID() != identity.ID() {
			l.Errorf("peers are %v and %v", a.conn.RemoteID(), b.RemoteID())
		}
		if got := a.conn.ConnectionState().TLS.NegotiatedProtocol; got != "mine" {
			l.Errorf("protocol %q", got)
		}
		l.exchange(a.conn, b, 1000)
	})
}

// ownTLS returns a TLS configuration of the application's.
func ownTLS(identity *Identity) *tls.Config {
	return &tls.Config{
		Certificates:       []tls.Certificate{identity.cert},
		InsecureSkipVerify: true,
		NextProtos:         []string{"mine"},
	}
}

// TestRefusals checks that mistakes of the caller lead to errors that say so.
func TestRefusals(t *testing.T) {
	other, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	deliver := &DialConfig{Deliver: func(context.Context, Offer) error { return nil }}
	for _, test := range []struct {
		name   string
		change func(*Config)
		dial   *DialConfig
		want   error
	}{
		{"no relay", func(c *Config) { c.Relay = Relay{} }, deliver, ErrMalformedRelay},
		{"relay without port", func(c *Config) { c.Relay.Addr = "192.0.2.1" }, deliver, ErrMalformedRelay},
		{"nobody there", func(c *Config) { c.Relay.Addr = "192.0.2.99:1" }, deliver, ErrRelayUnreachable},
		{"wrong pin", func(c *Config) { c.Relay.Pin = other.ID() }, deliver, ErrRelayMismatch},
		{"no pin", func(c *Config) { c.Relay.Pin = PeerID{} }, deliver, ErrRelayMismatch},
		{"wrong token", func(c *Config) { c.Relay.Token += "x" }, deliver, ErrUnauthorized},
		{"neither peer nor delivery", func(*Config) {}, nil, ErrConfig},
		{"delivery fails", func(*Config) {}, &DialConfig{Deliver: func(context.Context, Offer) error { return errPost }}, errPost},
		{"nobody answers", func(c *Config) { c.OfferTTL = 5 * time.Second }, deliver, ErrOfferExpired},
	} {
		t.Run(test.name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				h := l.host(test.change)
				c, err := h.Dial(l.Context(), PeerID{}, test.dial)
				if c != nil || !errors.Is(err, test.want) {
					l.Errorf("error %v, want %v", err, test.want)
				}
				if err != nil && (strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "p2p: dial: ")) {
					l.Errorf("no clear line: %q", err)
				}
			})
		})
	}
}

var errPost = errors.New("the post is on strike")

func TestConfigRefused(t *testing.T) {
	runLab(t, func(l *lab) {
		if _, err := NewEndpoint(&Config{OfferTTL: time.Millisecond}, l.net.Listen("192.0.2.3:1")); !errors.Is(err, ErrConfig) {
			l.Errorf("%v, want %v", err, ErrConfig)
		}
		l.net.Listen("192.0.2.3:1") // panics if the endpoint has left it open
	})
}

// TestDialCancelled checks that a cancelled dial returns its context's error and gives
// its leg back.
func TestDialCancelled(t *testing.T) {
	runLab(t, func(l *lab) {
		h := l.host(nil)
		ctx, cancel := context.WithCancel(l.Context())
		delivered := make(chan struct{})
		time.AfterFunc(time.Second, cancel)
		_, err := h.Dial(ctx, PeerID{}, &DialConfig{Deliver: func(ctx context.Context, _ Offer) error {
			close(delivered)
			<-ctx.Done()
			return ctx.Err()
		}})
		<-delivered
		if !errors.Is(err, context.Canceled) {
			l.Errorf("%v, want %v", err, context.Canceled)
		}
		time.Sleep(20 * time.Second)
		if s := l.server.Stats(); s.Sessions != 0 {
			l.Errorf("%d sessions are left", s.Sessions)
		}
	})
}

// TestEndpointClose checks that Close ends waiting calls and connections, leaves nothing
// behind, and may be called twice.
func TestEndpointClose(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.host(nil), l.host(nil)
		a, b := l.connect(alice, bob)
		waits := map[string]func() error{
			"Accept": func() error { _, err := alice.Accept(l.Context()); return err },
			"Dial": func() error {
				_, err := alice.Dial(l.Context(), PeerID{}, &DialConfig{Deliver: func(context.Context, Offer) error { return nil }})
				return err
			},
			"PathEvents": func() error {
				for range a.PathEvents(l.Context()) {
				}
				return ErrClosed
			},
		}
		type returned struct {
			name string
			err  error
		}
		returns := make(chan returned, len(waits))
		for name, wait := range waits {
			go func() { returns <- returned{name, wait()} }()
		}
		time.Sleep(time.Second)
		for range 2 {
			if err := alice.Close(); err != nil {
				l.Errorf("Close: %v", err)
			}
		}
		for range waits {
			if r := <-returns; !errors.Is(r.err, ErrClosed) || !errors.Is(r.err, net.ErrClosed) {
				l.Errorf("%s returns %v, want %v", r.name, r.err, ErrClosed)
			}
		}
		if err := l.closed(b); !applicationError(err, 0) {
			l.Errorf("the peer sees %v", err)
		}
		for name, call := range waits {
			if err := call(); !errors.Is(err, ErrClosed) {
				l.Errorf("%s after Close returns %v, want %v", name, err, ErrClosed)
			}
		}
		if _, err := alice.AcceptOffer(l.Context(), Offer{}); !errors.Is(err, ErrClosed) {
			l.Errorf("AcceptOffer after Close returns %v, want %v", err, ErrClosed)
		}
	})
}

// TestOneConnectionFunctions checks that Dial and AcceptOffer, the functions, close
// their endpoints with the connection.
func TestOneConnectionFunctions(t *testing.T) {
	runLab(t, func(l *lab) {
		accepted := make(chan result, 1)
		a, err := Dial(l.Context(), l.net.Listen("198.51.100.8:1"), PeerID{}, &Config{Relay: l.relay(), Policy: RelayOnly}, &DialConfig{
			Deliver: func(ctx context.Context, o Offer) error {
				c, err := AcceptOffer(ctx, l.net.Listen("198.51.100.9:1"), o, nil)
				accepted <- result{c, err}
				return err
			},
		})
		if err != nil {
			l.Fatal(err)
		}
		b := <-accepted
		if b.err != nil {
			l.Fatal(b.err)
		}
		l.exchange(a, b.conn, 10_000)
		if err := a.CloseWithError(7, "done"); err != nil {
			l.Fatal(err)
		}
		if err := l.closed(b.conn); !applicationError(err, 7) {
			l.Errorf("the peer sees %v", err)
		}
		time.Sleep(time.Minute)
		for i := 8; i <= 9; i++ {
			l.net.Listen(fmt.Sprintf("198.51.100.%d:1", i)) // panics if it is still open
		}
	})
}
