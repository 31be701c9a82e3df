package sni

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/quicway/quicway/internal/pki"
	"github.com/quicway/quicway/internal/test/nettest"
)

// bedHosts are a client, a relay and a server, each a host of its own. The interfaces of the
// relay are c1 and s1.
type bedHosts struct{ client, relay, server *nettest.Host }

// bed is such hosts in a test.
type bed struct {
	*testing.T
	bedHosts
}

var bedInterfaces = []string{"c1", "s1"}

// bedAddr returns an address of a host on one of the two sides. Host 1 is the relay.
func bedAddr(v6 bool, side, host int) netip.Addr {
	if v6 {
		return netip.MustParseAddr(fmt.Sprintf("fd00:77:%d::%d", side, host))
	}
	return netip.MustParseAddr(fmt.Sprintf("10.77.%d.%d", side, host))
}

func bedAddrs(side, host int) []string {
	return []string{bedAddr(false, side, host).String() + "/24", bedAddr(true, side, host).String() + "/64"}
}

func newBed(t *testing.T) *bed {
	t.Helper()
	h := newHosts(t)
	nettest.Cable(h.client, "c0", bedAddrs(1, 2), h.relay, "c1", bedAddrs(1, 1))
	nettest.Cable(h.relay, "s1", bedAddrs(2, 1), h.server, "s0", bedAddrs(2, 2))
	return &bed{t, h}
}

// lines connects the hosts by lines, which have the same conditions.
func lines(h *bedHosts, c nettest.LineConditions) (client, server *nettest.Line) {
	client = nettest.NewLine(h.client, "c0", bedAddrs(1, 2), h.relay, "c1", bedAddrs(1, 1), 1)
	server = nettest.NewLine(h.relay, "s1", bedAddrs(2, 1), h.server, "s0", bedAddrs(2, 2), 2)
	client.Set(c)
	server.Set(c)
	return client, server
}

// newHosts makes hosts that nothing connects.
func newHosts(tb testing.TB) bedHosts {
	tb.Helper()
	h := bedHosts{nettest.NewHost(tb), nettest.NewHost(tb), nettest.NewHost(tb)}
	if !nettest.KernelAtLeast(tb, 6, 6) {
		tb.Skip("TCX needs Linux 6.6")
	}
	return h
}

// listen opens a listener on the server.
func (b *bed) listen(v6 bool) (l net.Listener) {
	b.Helper()
	b.server.Do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(b.Context(), "tcp", netip.AddrPortFrom(bedAddr(v6, 2, 2), 0).String())
		return err
	})
	return l
}

// upstream makes an upstream whose connections the test gets from accept.
func (b *bed) upstream(v6 bool) *server {
	b.Helper()
	return newUpstreamOn(b.T, b.listen(v6))
}

// start runs a relay from the client's side to an upstream.
func (b *bed) start(v6 bool, upstream string, setup *spliceSetup) *relayProcessOf {
	b.Helper()
	if setup.Listen == "" {
		setup.Listen = netip.AddrPortFrom(bedAddr(v6, 1, 1), 0).String()
	}
	setup.Upstream = upstream
	return startSplicing(b.T, b.relay, setup)
}

// dial connects the client to an address.
func (b *bed) dial(address string) *net.TCPConn {
	b.Helper()
	var conn net.Conn
	b.client.Do(func() (err error) {
		d := net.Dialer{}
		d.SetMultipathTCP(false)
		conn, err = d.DialContext(b.Context(), "tcp", address)
		return err
	})
	b.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(bedPatience)); err != nil {
		b.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// bedPatience is the time after which the ends of a bed give up.
const bedPatience = 60 * time.Second

// open connects the client to an upstream through a relay, and returns both ends after the
// ClientHello has arrived.
func (b *bed) open(r *relayProcessOf, u *server) (client, upstream *net.TCPConn) {
	b.Helper()
	hello := helloOf(b.T, "a.test")
	client = b.dial(r.address)
	if _, err := client.Write(hello); err != nil {
		b.Fatal(err)
	}
	upstream = u.accept()
	if _, err := io.ReadFull(upstream, make([]byte, len(hello))); err != nil {
		b.Fatal(err)
	}
	return client, upstream
}

// spliced is open, and waits until the relay's only connection is in the kernel.
func (b *bed) spliced(r *relayProcessOf, u *server) (client, upstream *net.TCPConn) {
	b.Helper()
	client, upstream = b.open(r, u)
	say(b.T, client, upstream, "begin")
	say(b.T, upstream, client, "begin")
	r.waitFor("the takeover", func(s *SpliceStats) bool { return s.InKernel == 1 })
	return client, upstream
}

// waitFor waits until the relay's counters say something.
func (r *relayProcessOf) waitFor(what string, ok func(*SpliceStats) bool) {
	r.Helper()
	var last SpliceStats
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if last = r.splice(); ok(&last) {
			return
		}
		if time.Now().After(deadline) {
			r.Fatalf("%s: not in %v: %+v", what, patience, last)
		}
	}
}

// exchangeServer is a TLS server that exchanges bytes with clients, and counts those of its
// TCP connections.
type exchangeServer struct {
	net.Listener
	failed   func(error)
	received atomic.Uint64
	sent     atomic.Uint64
}

// exchange starts such a server. proxied says that PROXY protocol headers come first.
func (b *bed) exchange(v6, proxied bool) *exchangeServer {
	b.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	cert, err := pki.SelfSigned(key)
	if err != nil {
		b.Fatal(err)
	}
	s := &exchangeServer{Listener: b.listen(v6), failed: func(err error) { b.Errorf("the server: %v", err) }}
	conf := &tls.Config{Certificates: []tls.Certificate{cert}}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := s.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				c = &countedConn{c, &s.received, &s.sent}
				if proxied {
					c = proxyproto.NewConn(c)
				}
				conn := tls.Server(c, conf)
				defer conn.Close()
				if err := serveExchanges(conn); err != nil {
					s.failed(err)
				}
			})
		}
	})
	b.Cleanup(func() {
		s.Close()
		running.Wait()
	})
	return s
}

// countedConn counts the bytes of a connection.
type countedConn struct {
	net.Conn
	received, sent *atomic.Uint64
}

func (c *countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.received.Add(uint64(n))
	return n, err
}

func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.sent.Add(uint64(n))
	return n, err
}

// An exchange begins with how many bytes go up and down, and with the seed of these bytes.
const exchangeHeader = 24

// serveExchanges answers exchanges until the client ends.
func serveExchanges(c io.ReadWriter) error {
	for {
		header := make([]byte, exchangeHeader)
		if _, err := io.ReadFull(c, header); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		up, down, seed := binary.BigEndian.Uint64(header), binary.BigEndian.Uint64(header[8:]), binary.BigEndian.Uint64(header[16:])
		if err := both(c, seed, down, up); err != nil {
			return err
		}
	}
}

// exchange sends and receives bytes at the same time, and checks those that it receives.
func exchange(c io.ReadWriter, seed, up, down uint64) error {
	header := binary.BigEndian.AppendUint64(nil, up)
	header = binary.BigEndian.AppendUint64(header, down)
	header = binary.BigEndian.AppendUint64(header, seed)
	if _, err := c.Write(header); err != nil {
		return err
	}
	return both(c, seed, up, down)
}

func both(c io.ReadWriter, seed, send, receive uint64) error {
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyN(c, stream(seed), int64(send))
		sent <- err
	}()
	_, err := io.CopyN(&checker{want: stream(seed)}, c, int64(receive))
	return errors.Join(err, <-sent)
}

// stream returns the bytes of an exchange.
func stream(seed uint64) io.Reader {
	return mathrand.NewChaCha8([32]byte(binary.BigEndian.AppendUint64(make([]byte, 24), seed)))
}

// checker compares what is written with a stream.
type checker struct {
	want io.Reader
	at   int
	buf  []byte
}

func (c *checker) Write(b []byte) (int, error) {
	c.buf = append(c.buf[:0], b...)
	if _, err := io.ReadFull(c.want, c.buf); err != nil {
		return 0, err
	}
	if !bytes.Equal(b, c.buf) {
		i := 0
		for b[i] == c.buf[i] {
			i++
		}
		return 0, fmt.Errorf("byte %d is %#x, want %#x", c.at+i, b[i], c.buf[i])
	}
	c.at += len(b)
	return len(b), nil
}

// secure makes a TLS connection to a server through a relay.
func (b *bed) secure(address string) *tls.Conn {
	b.Helper()
	c := tls.Client(b.dial(address), &tls.Config{ServerName: "a.test", InsecureSkipVerify: true})
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		b.Fatal(err)
	}
	return c
}
