package p2p

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	xnettest "golang.org/x/net/nettest"

	"github.com/quicway/quicway/relay"
)

// TestNetConn checks with the tests of the Go project that a StreamConn is a net.Conn.
func TestNetConn(t *testing.T) {
	server, err := relay.Listen(t.Context(), "udp", "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Run(context.Background()) }()
	defer func() {
		if err := errors.Join(server.Close(), expectClosed(<-served)); err != nil {
			t.Error(err)
		}
	}()
	pin, err := ParsePeerID(server.Pin())
	if err != nil {
		t.Fatal(err)
	}
	conf := &Config{Relay: Relay{Addr: server.Addr().String(), Token: server.Token(), Pin: pin}}
	bob, err := NewEndpoint(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer bob.Close()
	alice, err := NewEndpoint(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer alice.Close()
	listener := bob.Listener()
	defer listener.Close()
	xnettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		c1, err = alice.DialContext(t.Context(), "tcp", bob.ID().String())
		if err == nil {
			c2, err = listener.Accept()
		}
		return c1, c2, func() { _, _ = c1.Close(), c2.Close() }, err
	})
}

func expectClosed(err error) error {
	if errors.Is(err, relay.ErrClosed) {
		return nil
	}
	return fmt.Errorf("relay: %w", err)
}

// pipe is two hosts, and a stream between them.
type pipe struct {
	*lab
	alice, bob *host
	listener   net.Listener // bob's
	dialed     *StreamConn
	accepted   *StreamConn
}

func runPipe(t *testing.T, test func(*pipe)) {
	t.Helper()
	runLab(t, func(l *lab) {
		p := &pipe{lab: l, alice: l.host(nil), bob: l.host(nil)}
		p.listener = p.bob.Listener()
		p.dialed, p.accepted = p.stream()
		test(p)
	})
}

// stream makes another stream.
func (p *pipe) stream() (dialed, accepted *StreamConn) {
	p.Helper()
	c, err := p.alice.DialContext(p.Context(), "tcp", p.bob.ID().String())
	if err != nil {
		p.Fatal(err)
	}
	d, err := p.listener.Accept()
	if err != nil {
		p.Fatal(err)
	}
	return c.(*StreamConn), d.(*StreamConn)
}

// TestServerSpeaksFirst checks that a server can greet a client that has written nothing.
func TestServerSpeaksFirst(t *testing.T) {
	runPipe(t, func(p *pipe) {
		if _, err := io.WriteString(p.accepted, "220 ready"); err != nil {
			p.Fatal(err)
		}
		b := make([]byte, 9)
		if _, err := io.ReadFull(p.dialed, b); err != nil || string(b) != "220 ready" {
			p.Errorf("read %q, %v", b, err)
		}
	})
}

// TestStreamConnAddresses checks that both addresses name peers.
func TestStreamConnAddresses(t *testing.T) {
	runPipe(t, func(p *pipe) {
		for _, c := range []struct {
			conn          *StreamConn
			local, remote *host
		}{{p.dialed, p.alice, p.bob}, {p.accepted, p.bob, p.alice}} {
			for addr, id := range map[net.Addr]PeerID{c.conn.LocalAddr(): c.local.ID(), c.conn.RemoteAddr(): c.remote.ID()} {
				if addr.Network() != "quicway" || addr.String() != id.String() || addr.(PeerAddr).ID != id {
					p.Errorf("address %v, %v, want %v", addr.Network(), addr, id)
				}
			}
		}
		if a := p.listener.Addr(); a.String() != p.bob.ID().String() {
			p.Errorf("listener at %v", a)
		}
	})
}

// TestCloseDelivers checks that all that was written before Close arrives, also if the peer
// reads it later, as long as the connection lives.
func TestCloseDelivers(t *testing.T) {
	runPipe(t, func(p *pipe) {
		data := random(100_000) // less than the peer's window: Write does not wait for it
		if _, err := p.dialed.Write(data); err != nil {
			p.Fatal(err)
		}
		if err := p.dialed.Close(); err != nil {
			p.Error(err)
		}
		time.Sleep(30 * time.Second)
		got, err := io.ReadAll(p.accepted)
		if err != nil || !bytes.Equal(got, data) {
			p.Errorf("read %d bytes, %v", len(got), err)
		}
	})
}

// TestStreamHalfClose checks that both directions end independently, in either order.
func TestStreamHalfClose(t *testing.T) {
	for _, test := range []struct{ name, first string }{{"dialer first", "dialer"}, {"accepter first", "accepter"}} {
		t.Run(test.name, func(t *testing.T) {
			runPipe(t, func(p *pipe) {
				a, b := p.dialed, p.accepted
				if test.first == "accepter" {
					a, b = b, a
				}
				for _, s := range []struct {
					from, to *StreamConn
					text     string
				}{{a, b, "question"}, {b, a, "answer"}} {
					if _, err := io.WriteString(s.from, s.text); err != nil {
						p.Fatal(err)
					}
					if err := s.from.CloseWrite(); err != nil {
						p.Error(err)
					}
					if got, err := io.ReadAll(s.to); err != nil || string(got) != s.text {
						p.Errorf("read %q, %v, want %q", got, err, s.text)
					}
					_, err := s.from.Write([]byte{1})
					p.want(err, "write", net.ErrClosed, syscall.EPIPE)
				}
				for _, c := range []*StreamConn{a, b} {
					if err := c.Close(); err != nil {
						p.Error(err)
					}
				}
			})
		})
	}
}

// want checks an error of a net.Conn: the operation, what it is, and what it is not.
func (l *lab) want(err error, op string, is, not error) {
	l.Helper()
	var operation *net.OpError
	if !errors.As(err, &operation) || operation.Op != op || !errors.Is(err, is) || errors.Is(err, not) {
		l.Errorf("error %v, want %v of %q, not %v", err, is, op, not)
	}
}

// endings are ways to end a stream, and what the peer then gets; nil: io.EOF.
var endings = []struct {
	name        string
	end         func(*StreamConn)
	read, write error
}{
	{"close", func(c *StreamConn) { _ = c.Close() }, nil, syscall.EPIPE},
	{"close after FIN", func(c *StreamConn) { _, _ = c.CloseWrite(), c.Close() }, nil, syscall.EPIPE},
	{"close twice", func(c *StreamConn) { _, _ = c.Close(), c.Close() }, nil, syscall.EPIPE},
	{"reset", func(c *StreamConn) { c.Reset(5) }, syscall.ECONNRESET, syscall.EPIPE},
	{"reset after FIN", func(c *StreamConn) { _ = c.CloseWrite(); c.Reset(5) }, syscall.ECONNRESET, syscall.EPIPE},
	{"close after reset", func(c *StreamConn) { c.Reset(5); _ = c.Close() }, syscall.ECONNRESET, syscall.EPIPE},
	{"close after CancelRead", func(c *StreamConn) { c.stream.CancelRead(5); _ = c.Close() }, nil, syscall.EPIPE},
	{"close after CancelWrite", func(c *StreamConn) { c.stream.CancelWrite(5); _ = c.Close() }, syscall.ECONNRESET, syscall.EPIPE},
	// Those that end the connection, too.
	{"connection", func(c *StreamConn) { _ = c.Conn().CloseWithError(7, "bye") }, syscall.ECONNRESET, syscall.ECONNRESET},
	{"endpoint", func(c *StreamConn) { _ = c.conn.endpoint.Close() }, syscall.ECONNRESET, syscall.ECONNRESET},
}

// TestStreamEnds checks what both sides see when one of them ends a stream.
func TestStreamEnds(t *testing.T) {
	runPipe(t, func(p *pipe) {
		for _, e := range endings {
			p.Logf("%s by the dialer", e.name)
			p.ends(p.dialed, p.accepted, e.end, e.read, e.write)
			if e.name == "endpoint" {
				return // which is closed
			}
			p.dialed, p.accepted = p.stream()
			p.Logf("%s by the accepter", e.name)
			p.ends(p.accepted, p.dialed, e.end, e.read, e.write)
			p.dialed, p.accepted = p.stream()
		}
	})
}

// ends ends a stream, and checks what both sides get.
func (l *lab) ends(own, other *StreamConn, end func(*StreamConn), read, write error) {
	l.Helper()
	waits := make(chan error, 1)
	go func() {
		_, err := own.Read(make([]byte, 10))
		waits <- err
	}()
	time.Sleep(time.Second)
	end(own)
	err := <-waits
	if own.stream.Context().Err() == nil {
		l.Error("the stream is open")
	}
	var cancelled *quic.StreamError // by quic-go, before Close
	if !errors.As(err, &cancelled) {
		l.want(err, "read", net.ErrClosed, syscall.ECONNRESET)
	}
	time.Sleep(time.Second)
	_, err = own.Read(make([]byte, 10))
	l.want(err, "read", net.ErrClosed, syscall.ECONNRESET)
	_, err = own.Write([]byte{1})
	l.want(err, "write", net.ErrClosed, syscall.ECONNRESET)
	if n, err := other.Read(make([]byte, 10)); read == nil && (n != 0 || err != io.EOF) {
		l.Errorf("the peer reads %d bytes, %v, want EOF", n, err)
	} else if read != nil {
		l.want(err, "read", read, net.ErrClosed)
	}
	_, err = other.Write([]byte{1})
	l.want(err, "write", write, net.ErrClosed)
	_ = other.Close()
}

// TestResetCode checks that the code of a reset can be found.
func TestResetCode(t *testing.T) {
	runPipe(t, func(p *pipe) {
		p.dialed.Reset(42)
		_, err := io.ReadAll(p.accepted)
		var reset *quic.StreamError
		if !errors.As(err, &reset) || reset.ErrorCode != 42 || !strings.Contains(err.Error(), "42") {
			p.Errorf("error %v", err)
		}
	})
}

// TestPeerIsLost checks that a StreamConn ends with the reason when its connection does, and
// that it is not taken for a timeout of Read, after which a caller may try again.
func TestPeerIsLost(t *testing.T) {
	runPipe(t, func(p *pipe) {
		p.net.Cut("198.51.100.2", "192.0.2.1")
		_, err := p.dialed.Read(make([]byte, 10))
		p.want(err, "read", syscall.ECONNRESET, net.ErrClosed)
		var timeout net.Error
		if !errors.As(err, &timeout) || timeout.Timeout() {
			p.Errorf("error %v is a timeout", err)
		}
		var idle *quic.IdleTimeoutError
		if !errors.As(err, &idle) && !errors.Is(err, ErrPeerGone) {
			p.Errorf("error %v has no reason", err)
		}
		p.net.Mend("198.51.100.2", "192.0.2.1")
	})
}

// TestCloseWhileWriting checks that Close ends a Write that waits for the peer, and that
// what had gone before arrives.
func TestCloseWhileWriting(t *testing.T) {
	for name, end := range map[string]func(*StreamConn) error{"close": (*StreamConn).Close, "close write": (*StreamConn).CloseWrite} {
		t.Run(name, func(t *testing.T) {
			runPipe(t, func(p *pipe) {
				data := random(10 << 20)
				wrote := make(chan int, 1)
				go func() {
					n, err := p.dialed.Write(data)
					p.want(err, "write", net.ErrClosed, os.ErrDeadlineExceeded)
					wrote <- n
				}()
				time.Sleep(5 * time.Second) // the window is full
				if err := end(p.dialed); err != nil {
					p.Error(err)
				}
				n := <-wrote
				if n == 0 || n == len(data) {
					p.Errorf("%d bytes were written", n)
				}
				got, err := io.ReadAll(p.accepted)
				if err != nil || !bytes.Equal(got, data[:n]) {
					p.Errorf("read %d bytes, %v, want %d", len(got), err, n)
				}
			})
		})
	}
}

// TestDeadlines checks that the deadlines of the two directions are independent, and can be
// moved while a call waits.
func TestDeadlines(t *testing.T) {
	runPipe(t, func(p *pipe) {
		c := p.dialed
		began := time.Now()
		if err := c.SetReadDeadline(began.Add(time.Hour)); err != nil {
			p.Fatal(err)
		}
		time.AfterFunc(time.Second, func() { _ = c.SetReadDeadline(time.Now().Add(time.Second)) })
		_, err := c.Read(make([]byte, 1))
		p.want(err, "read", os.ErrDeadlineExceeded, net.ErrClosed)
		if after := time.Since(began); after != 2*time.Second {
			p.Errorf("after %v", after)
		}
		if _, err := c.Write([]byte("a")); err != nil {
			p.Error(err)
		}
		if err := c.SetDeadline(time.Now().Add(-time.Second)); err != nil {
			p.Error(err)
		}
		_, err = c.Write([]byte("b"))
		p.want(err, "write", os.ErrDeadlineExceeded, net.ErrClosed)
		if err := c.SetDeadline(time.Time{}); err != nil {
			p.Error(err)
		}
		if _, err := c.Write([]byte("c")); err != nil {
			p.Error(err)
		}
		b := make([]byte, 2)
		if _, err := io.ReadFull(p.accepted, b); err != nil || string(b) != "ac" {
			p.Errorf("read %q, %v", b, err)
		}
		_ = c.Close()
		p.want(c.SetDeadline(time.Time{}), "set", net.ErrClosed, io.EOF)
	})
}

// TestDeadlineBeforePreface checks that deadlines of Read hold while not even the beginning of
// a stream has come, and that Read goes on where it was.
func TestDeadlineBeforePreface(t *testing.T) {
	runPipe(t, func(p *pipe) {
		s, err := p.dialed.Conn().OpenStreamSync(p.Context())
		if err != nil {
			p.Fatal(err)
		}
		var c net.Conn
		for i, part := range [][]byte{{prefaceType}, {3}, {0, 0}, {0}, []byte("x")} {
			if _, err := s.Write(part); err != nil {
				p.Fatal(err)
			}
			if i == 0 {
				if c, err = p.listener.Accept(); err != nil {
					p.Fatal(err)
				}
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			b := make([]byte, 1)
			switch n, err := c.Read(b); i {
			case 4:
				if err != nil || string(b[:n]) != "x" {
					p.Errorf("read %q, %v", b[:n], err)
				}
			default:
				p.want(err, "read", os.ErrDeadlineExceeded, io.EOF)
			}
		}
	})
}

// TestForeignStream checks that a stream without the preface is refused, and one that ends
// within it is an error.
func TestForeignStream(t *testing.T) {
	runPipe(t, func(p *pipe) {
		for _, test := range []struct {
			text string
			want error
		}{{"GET /", errPreface}, {"\x21", io.ErrUnexpectedEOF}, {"\x21\x05abc", io.ErrUnexpectedEOF}, {"", io.EOF}, {"\x21\x03abc", io.EOF}} {
			s, err := p.dialed.Conn().OpenStreamSync(p.Context())
			if err == nil {
				_, err = io.WriteString(s, test.text)
			}
			if err = errors.Join(err, s.Close()); err != nil {
				p.Fatal(err)
			}
			c, err := p.listener.Accept()
			if err != nil {
				p.Fatal(err)
			}
			if _, err = c.Read(make([]byte, 10)); !errors.Is(err, test.want) {
				p.Errorf("read %q: %v, want %v", test.text, err, test.want)
			}
			if _, err = c.Read(make([]byte, 10)); err == nil {
				p.Errorf("read %q again", test.text)
			}
			_ = c.Close()
			_, err = io.ReadAll(s)
			var reset *quic.StreamError
			if refused := errors.As(err, &reset) && reset.ErrorCode == CodeStreamRefused; refused != (test.want == errPreface) {
				p.Errorf("the peer of %q reads %v", test.text, err)
			}
		}
	})
}

// TestRawNetConn checks that NetConn adds nothing to a stream.
func TestRawNetConn(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.host(nil), l.host(nil))
		s, err := a.OpenStreamSync(l.Context())
		if err != nil {
			l.Fatal(err)
		}
		c := a.NetConn(s)
		if _, err := io.WriteString(c, "hello"); err != nil {
			l.Fatal(err)
		}
		_ = c.Close()
		r, err := b.AcceptStream(l.Context())
		if err != nil {
			l.Fatal(err)
		}
		if got, err := io.ReadAll(b.NetConn(r)); err != nil || string(got) != "hello" {
			l.Errorf("read %q, %v", got, err)
		}
	})
}
