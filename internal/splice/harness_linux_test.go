package splice

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// lab is a client, a relay and a server, each in a network namespace of its own.
type lab struct {
	t                     *testing.T
	client, relay, server *nettest.Host
	program               *Program
	v6                    bool
	relayed, served       *net.TCPListener                   // of the relay, of the server
	before                map[*nettest.Host]map[string]int64 // counters before takeovers
}

// newLab makes a lab whose interfaces have the program.
func newLab(t *testing.T, v6 bool, conf *Config) *lab {
	t.Helper()
	l := newCables(t, v6)
	l.load(conf)
	return l
}

func newCables(t *testing.T, v6 bool) *lab {
	t.Helper()
	l := &lab{t: t, v6: v6, client: nettest.NewHost(t), relay: nettest.NewHost(t), server: nettest.NewHost(t)}
	nettest.Cable(l.client, "c0", []string{"10.1.0.1/24", "fd00:1::1/64"}, l.relay, "ra", []string{"10.1.0.2/24", "fd00:1::2/64"})
	nettest.Cable(l.server, "s0", []string{"10.2.0.1/24", "fd00:2::1/64"}, l.relay, "rb", []string{"10.2.0.2/24", "fd00:2::2/64"})
	l.relayed = l.listen(l.relay, l.addr("10.1.0.2", "fd00:1::2"))
	l.served = l.listen(l.server, l.addr("10.2.0.1", "fd00:2::1"))
	return l
}

// load loads the program, and attaches it.
func (l *lab) load(conf *Config) {
	l.t.Helper()
	l.relay.Do(func() error {
		l.program = mustLoad(l.t, conf)
		return errors.Join(l.program.Attach("ra"), l.program.Attach("rb"))
	})
}

func (l *lab) addr(v4, v6 string) string {
	if l.v6 {
		return net.JoinHostPort(v6, "4433")
	}
	return net.JoinHostPort(v4, "4433")
}

func (l *lab) listen(h *nettest.Host, addr string) (ln *net.TCPListener) {
	l.t.Helper()
	h.Do(func() error {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		x, err := lc.Listen(context.Background(), "tcp", addr)
		if err == nil {
			ln = x.(*net.TCPListener)
			l.t.Cleanup(func() { ln.Close() })
		}
		return err
	})
	return ln
}

func (l *lab) dial(h *nettest.Host, from, to string) (c *net.TCPConn) {
	l.t.Helper()
	h.Do(func() error {
		d := net.Dialer{Timeout: 10 * time.Second}
		d.SetMultipathTCP(false)
		if from != "" {
			addr, err := net.ResolveTCPAddr("tcp", from)
			if err != nil {
				return err
			}
			d.LocalAddr = addr
		}
		x, err := d.Dial("tcp", to)
		if err == nil {
			c = x.(*net.TCPConn)
		}
		return err
	})
	return c
}

// chain is a connection of the client to the relay, and one of the relay to the server.
type chain struct {
	l              *lab
	client, server *net.TCPConn // the ends
	down, up       *net.TCPConn // the relay's sockets
	copies         sync.WaitGroup
}

// connect makes a chain, and starts to copy.
func (l *lab) connect() *chain { return l.connectFrom("") }

// connectFrom is connect for a client with that address.
func (l *lab) connectFrom(addr string) *chain {
	l.t.Helper()
	return l.chain(addr, l.relayed.Addr().String())
}

// connectTo is connect for an address of the relay.
func (l *lab) connectTo(addr string) *chain {
	l.t.Helper()
	return l.chain("", addr)
}

func (l *lab) chain(from, to string) *chain {
	l.t.Helper()
	c := &chain{l: l}
	c.client = l.dial(l.client, from, to)
	c.down = accept(l.t, l.relayed)
	c.up = l.dial(l.relay, "", l.served.Addr().String())
	c.server = accept(l.t, l.served)
	l.t.Cleanup(func() {
		for _, s := range []*net.TCPConn{c.client, c.server, c.down, c.up} {
			s.SetLinger(0)
			s.Close()
		}
		c.copies.Wait()
	})
	c.relay()
	l.before = make(map[*nettest.Host]map[string]int64)
	for _, h := range []*nettest.Host{l.client, l.relay, l.server} {
		l.before[h] = l.snmp(h)
	}
	return c
}

func accept(t *testing.T, ln *net.TCPListener) *net.TCPConn {
	t.Helper()
	ln.SetDeadline(time.Now().Add(time.Minute))
	c, err := ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// relay copies between the relay's sockets. Errors are those of a pair that has ended or came back.
func (c *chain) relay() {
	for _, way := range [][2]*net.TCPConn{{c.up, c.down}, {c.down, c.up}} {
		c.copies.Go(func() {
			if _, err := io.Copy(way[0], way[1]); err == nil {
				way[0].CloseWrite()
			}
		})
	}
}

// take moves the chain into the kernel.
func (c *chain) take() *Pair {
	c.l.t.Helper()
	pair, err := c.l.program.Take(c.l.t.Context(), c.down, c.up, 0)
	if err != nil {
		c.l.t.Fatal(err)
	}
	return pair
}

// takeBack moves the chain back to userspace, which goes on copying.
func (c *chain) takeBack(p *Pair) {
	c.l.t.Helper()
	down, up, err := p.Return(c.l.t.Context())
	if err != nil {
		c.l.t.Fatal(err)
	}
	c.copies.Wait()
	c.down, c.up = down, up
	c.relay()
}

// noise is an endless stream of bytes.
func noise(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

// send sends bytes of a stream.
func send(c *net.TCPConn, from io.Reader, n int64) error {
	_, err := io.CopyN(c, from, n)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// expect reads bytes of a stream.
func expect(c *net.TCPConn, want io.Reader, n int64) error {
	_, err := read(c, want, n)
	return err
}

// read reads up to n bytes of a stream, and returns how many were right.
func read(c *net.TCPConn, want io.Reader, n int64) (done int64, err error) {
	got, wanted := make([]byte, 64<<10), make([]byte, 64<<10)
	for done < n {
		k, err := c.Read(got[:min(n-done, int64(len(got)))])
		if err != nil {
			return done, fmt.Errorf("after %d of %d bytes: %w", done, n, err)
		}
		io.ReadFull(want, wanted[:k])
		if !bytes.Equal(got[:k], wanted[:k]) {
			return done, fmt.Errorf("wrong bytes after %d of %d", done, n)
		}
		done += int64(k)
	}
	return done, nil
}

// streams are what both ends send.
type streams struct{ sentUp, sentDown, gotUp, gotDown io.Reader }

func newStreams() *streams { return &streams{noise(1), noise(2), noise(1), noise(2)} }

// exchange sends bytes in both directions at the same time, and checks them.
func (c *chain) exchange(s *streams, n int64) error {
	return c.together(
		func() error { return send(c.client, s.sentUp, n) },
		func() error { return send(c.server, s.sentDown, n) },
		func() error { return expect(c.server, s.gotUp, n) },
		func() error { return expect(c.client, s.gotDown, n) },
	)
}

// exchangeUntil is exchange until stop is closed. Both ends finish then.
func (c *chain) exchangeUntil(s *streams, stop <-chan struct{}) error {
	up, down := make(chan int64, 1), make(chan int64, 1)
	return c.together(
		func() error { return sendUntil(c.client, s.sentUp, stop, up) },
		func() error { return sendUntil(c.server, s.sentDown, stop, down) },
		func() error { return expectAll(c.server, s.gotUp, up) },
		func() error { return expectAll(c.client, s.gotDown, down) },
	)
}

// sendUntil sends a stream until stop is closed, and the number of its bytes to sent.
func sendUntil(c *net.TCPConn, from io.Reader, stop <-chan struct{}, sent chan<- int64) error {
	const piece = 256 << 10
	for n := int64(0); ; n += piece {
		select {
		case <-stop:
			sent <- n
			return c.CloseWrite()
		default:
		}
		if err := send(c, from, piece); err != nil {
			sent <- n
			return err
		}
	}
}

// expectAll reads a stream to its end, and checks that all bytes that were sent have come.
func expectAll(c *net.TCPConn, want io.Reader, sent <-chan int64) error {
	const endless = 1 << 62
	n, err := read(c, want, endless)
	if !errors.Is(err, io.EOF) {
		return err
	}
	if all := <-sent; n != all {
		return fmt.Errorf("the end after %d of %d bytes", n, all)
	}
	return nil
}

// together runs the jobs of the ends at the same time.
func (c *chain) together(jobs ...func() error) error {
	const timeout = 60 * time.Second
	for _, end := range []*net.TCPConn{c.client, c.server} {
		end.SetDeadline(time.Now().Add(timeout))
	}
	errs := make(chan error, len(jobs))
	for _, job := range jobs {
		go func() { errs <- job() }()
	}
	var all []error
	for range jobs {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// mustExchange is exchange, and fails the test.
func (c *chain) mustExchange(s *streams, n int64) {
	c.l.t.Helper()
	if err := c.exchange(s, n); err != nil {
		c.l.t.Fatal(err)
	}
}

// families runs a test with IPv4 and with IPv6, at the same time.
func families(t *testing.T, f func(t *testing.T, v6 bool)) {
	for name, v6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, v6)
		})
	}
}

// snmp returns the counters of TCP and IP of a host.
func (l *lab) snmp(h *nettest.Host) (counters map[string]int64) {
	l.t.Helper()
	h.Do(func() (err error) {
		counters, err = readCounters()
		return err
	})
	return counters
}

// counter returns a counter of TCP in the namespace of the test.
func counter(t *testing.T, name string) int64 {
	t.Helper()
	counters, err := readCounters()
	if err != nil {
		t.Fatal(err)
	}
	return counters["TcpExt"+name]
}

// readCounters reads the counters of the namespace of the calling thread.
func readCounters() (map[string]int64, error) {
	out := make(map[string]int64)
	for _, file := range []string{"netstat", "snmp"} {
		text, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			return nil, err
		}
		var names []string
		for line := range strings.Lines(string(text)) { // one with names, one with numbers, and so on
			group, rest, _ := strings.Cut(line, ":")
			fields := strings.Fields(rest)
			if names == nil {
				names = fields
				continue
			}
			for i, f := range fields {
				n, err := strconv.ParseInt(f, 10, 64)
				if err != nil {
					return nil, err
				}
				out[group+names[i]] = n
			}
			names = nil
		}
	}
	return out, nil
}

// clean checks that no end has seen since connect what only wrong numbers cause. It is not for tests that
// move much: acknowledgements that a busy machine delivers late look the same.
func (l *lab) clean() {
	l.t.Helper()
	for name, h := range map[string]*nettest.Host{"client": l.client, "server": l.server} {
		counters := l.snmp(h)
		for _, c := range []string{
			"TcpExtPAWSEstab", "TcpExtBeyondWindow", "TcpExtTCPChallengeACK", "TcpInErrs", "TcpExtTCPZeroWindowDrop",
		} {
			if n := counters[c] - l.before[h][c]; n != 0 {
				l.t.Errorf("%s: %s has grown by %d", name, c, n)
			}
		}
	}
}
