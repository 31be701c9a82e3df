package p2p

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/relay"
)

//go:embed testdata/offer.txt
var offerText string

const relayAddr = "192.0.2.1:4433"

var relaySecret = bytes.Repeat([]byte{9}, 32)

// lab is a network with a relay, on the fake clock.
type lab struct {
	*testing.T
	net          *nettest.Network
	server       *relay.Server
	served       chan error
	maxListeners int
	hosts        int
}

// runLab runs a test with a relay. synctest reports goroutines that are left at the end.
func runLab(t *testing.T, test func(*lab)) {
	t.Helper()
	runLabSeeded(t, 1, test)
}

// runLabSeeded is runLab with a seed for the network's random decisions.
func runLabSeeded(t *testing.T, seed uint64, test func(*lab)) {
	t.Helper()
	nettest.Bubble(t, func(t *testing.T) {
		l := &lab{T: t, net: nettest.New(seed)}
		l.net.Set(nettest.Conditions{Delay: 10 * time.Millisecond})
		l.startRelay()
		test(l)
		l.stopRelay()
	})
}

func (l *lab) startRelay() {
	l.Helper()
	l.server, l.served = l.serve(relayAddr)
}

// serve starts a relay at an address.
func (l *lab) serve(addr string) (*relay.Server, chan error) {
	l.Helper()
	return l.serveWith(addr, &relay.Config{Secret: relaySecret, TTL: 20 * time.Second, MaxListeners: l.maxListeners})
}

func (l *lab) serveWith(addr string, conf *relay.Config) (*relay.Server, chan error) {
	l.Helper()
	server, err := relay.New(conf, l.net.Listen(addr))
	if err != nil {
		l.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Run(context.Background()) }()
	return server, served
}

func (l *lab) stopRelay() {
	l.Helper()
	l.unserve(l.server, l.served)
}

// unserve stops a relay.
func (l *lab) unserve(server *relay.Server, served chan error) {
	l.Helper()
	if err := server.Close(); err != nil {
		l.Errorf("close relay: %v", err)
	}
	if err := <-served; !errors.Is(err, relay.ErrClosed) {
		l.Errorf("relay: %v", err)
	}
}

// relay returns the relay for peers.
func (l *lab) relay() Relay {
	pin, err := ParsePeerID(l.server.Pin())
	if err != nil {
		l.Fatal(err)
	}
	return Relay{Addr: relayAddr, Token: l.server.Token(), Pin: pin}
}

// host is an endpoint and its socket.
type host struct {
	*Endpoint
	conn *nettest.Conn
}

// host makes an endpoint. change, if not nil, changes its configuration.
func (l *lab) host(change func(*Config)) *host {
	l.Helper()
	l.hosts++
	conf := &Config{Relay: l.relay(), Policy: RelayOnly, DisablePortMapping: true}
	if testing.Verbose() {
		conf.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("host", l.hosts)
	}
	if change != nil {
		change(conf)
	}
	conn := l.net.Listen(fmt.Sprintf("198.51.100.%d:1000", l.hosts))
	e, err := NewEndpoint(conf, conn)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		if err := e.Close(); err != nil {
			l.Errorf("close endpoint: %v", err)
		}
	})
	return &host{e, conn}
}

// connect makes a connection between two hosts, without the mailbox.
func (l *lab) connect(dialer, accepter *host) (dialed, accepted *Conn) {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.Context(), time.Minute)
	defer cancel()
	got := make(chan *Conn, 1)
	dialed, err := dialer.Dial(ctx, accepter.ID(), &DialConfig{Deliver: func(_ context.Context, o Offer) error {
		c, err := accepter.AcceptOffer(ctx, o) // the dialer may be ready before
		got <- c
		return err
	}})
	if err != nil {
		l.Fatal(err)
	}
	accepted = <-got
	if dialed.RemoteID() != accepter.ID() || accepted != nil && accepted.RemoteID() != dialer.ID() {
		l.Fatal("the peers do not know each other")
	}
	return dialed, accepted
}

// offer has a host dial, and returns the offer and the result.
func (l *lab) offer(dialer *host, peer PeerID) (Offer, <-chan result) {
	l.Helper()
	offers, results := make(chan Offer, 1), make(chan result, 1)
	go func() {
		c, err := dialer.Dial(l.Context(), peer, &DialConfig{Deliver: func(_ context.Context, o Offer) error {
			offers <- o
			return nil
		}})
		results <- result{c, err}
	}()
	select {
	case o := <-offers:
		return o, results
	case r := <-results:
		l.Fatalf("no offer: %v", r.err)
	}
	panic("unreachable")
}

type result struct {
	conn *Conn
	err  error
}

// random returns n random bytes.
func random(n int) []byte {
	var seed [32]byte
	seed[0] = byte(n)
	b := make([]byte, n)
	rand.NewChaCha8(seed).Read(b)
	return b
}

// exchange sends data in both directions at the same time, and compares it.
func (l *lab) exchange(a, b *Conn, n int) {
	l.Helper()
	data := random(n)
	errs := make(chan error, 2)
	go func() { errs <- pass(b, a, data) }()
	go func() { errs <- pass(a, b, data) }()
	for range 2 {
		if err := <-errs; err != nil {
			l.Fatal(err)
		}
	}
}

// pass sends data on a stream, and compares what arrives.
func pass(from, to *Conn, data []byte) error {
	ctx := context.Background()
	sent := make(chan error, 1)
	go func() {
		stream, err := from.OpenUniStreamSync(ctx)
		if err == nil {
			_, err = stream.Write(data)
		}
		if err == nil {
			err = stream.Close()
		}
		sent <- err
	}()
	stream, err := to.AcceptUniStream(ctx)
	if err != nil {
		return fmt.Errorf("accept stream: %w", errors.Join(err, <-sent))
	}
	got, err := io.ReadAll(stream)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if sha256.Sum256(got) != sha256.Sum256(data) {
		return fmt.Errorf("%d other bytes arrived, of %d", len(got), len(data))
	}
	return <-sent
}

// closed waits for the end of a connection and returns why it ended.
func (l *lab) closed(c *Conn) error {
	l.Helper()
	select {
	case <-c.Context().Done():
		return c.Err()
	case <-time.After(10 * time.Minute):
		l.Fatal("the connection does not end")
		return nil
	}
}

// alive fails the test if a connection has ended.
func (l *lab) alive(conns ...*Conn) {
	l.Helper()
	for _, c := range conns {
		if err := c.Err(); err != nil {
			l.Fatalf("the connection is over: %v", err)
		}
	}
}

// applicationError says whether err comes from CloseWithError of the other side.
func applicationError(err error, code quic.ApplicationErrorCode) bool {
	var e *quic.ApplicationError
	return errors.As(err, &e) && e.ErrorCode == code && e.Remote
}

var _ net.PacketConn = (*nettest.Conn)(nil)
