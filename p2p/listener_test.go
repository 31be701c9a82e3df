package p2p

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// open opens a stream from one host to another.
func (l *lab) open(from, to *host) net.Conn {
	l.Helper()
	c, err := from.DialContext(l.Context(), "tcp", to.ID().String())
	if err != nil {
		l.Fatal(err)
	}
	return c
}

// accept accepts a stream.
func (l *lab) accept(listener net.Listener) net.Conn {
	l.Helper()
	c, err := listener.Accept()
	if err != nil {
		l.Fatal(err)
	}
	return c
}

// TestListenerIsFair checks that a peer with many streams, which sends nothing on most of
// them, delays no other.
func TestListenerIsFair(t *testing.T) {
	runLab(t, func(l *lab) {
		server, greedy, modest := l.host(nil), l.host(nil), l.host(nil)
		listener := server.Listener()
		first := l.open(greedy, server).(*StreamConn)
		for range 50 {
			l.open(greedy, server)
		}
		s, err := first.Conn().OpenStreamSync(l.Context()) // a stream without a preface, and one that skips many
		if err == nil {
			_, err = s.Write([]byte{prefaceType})
		}
		if err != nil {
			l.Fatal(err)
		}
		l.open(modest, server)
		time.Sleep(time.Second)
		for i := range 3 {
			if c := l.accept(listener); c.RemoteAddr().String() == modest.ID().String() {
				return
			} else if i == 2 {
				l.Error("the modest peer waits behind the greedy one")
			}
		}
	})
}

// TestListenedConnectionsAreBounded checks that a listener serves a bounded number of
// connections of a peer, and that those that are not in use make room.
func TestListenedConnectionsAreBounded(t *testing.T) {
	runLab(t, func(l *lab) {
		server, client := l.host(nil), l.host(nil)
		listener := server.Listener()
		dial := func() *Conn {
			c, err := client.Dial(l.Context(), server.ID(), nil)
			if err != nil {
				l.Fatal(err)
			}
			return c
		}
		var conns []*Conn
		for range maxListenedPeer {
			conns = append(conns, dial())
			time.Sleep(time.Second)
		}
		use := func(c *Conn) {
			if _, err := c.DialContext(l.Context(), "tcp", ""); err != nil {
				l.Fatal(err)
			}
			l.accept(listener)
		}
		use(conns[0])
		another := dial()
		time.Sleep(time.Second)
		for i, c := range conns {
			if ended := c.Err() != nil; ended != (i == 1) {
				l.Errorf("connection %d has ended: %v", i, ended)
			}
		}
		for _, c := range append(conns[2:], another) {
			use(c)
		}
		refused, err := client.Dial(l.Context(), server.ID(), nil)
		if err == nil { // it may have been refused before Dial returns
			err = l.closed(refused)
		}
		if !errors.Is(err, ErrPeerRefused) {
			l.Errorf("the connection that finds no room has ended with %v", err)
		}
		l.alive(another, conns[0])
		other := l.host(nil)
		l.open(other, server) // another peer
		if c := l.accept(listener); c.RemoteAddr().String() != other.ID().String() {
			l.Errorf("accepted %v", c.RemoteAddr())
		}
	})
}

// TestListenerCloses checks what closing a listener does: to Accept, to streams that are open,
// that wait, or come later, and to the connection.
func TestListenerCloses(t *testing.T) {
	runPipe(t, func(p *pipe) {
		waiting := p.open(p.alice, p.bob)
		time.Sleep(time.Second)
		for range 2 {
			if err := p.listener.Close(); err != nil {
				p.Errorf("close: %v", err)
			}
		}
		_, err := p.listener.Accept()
		p.want(err, "accept", net.ErrClosed, ErrClosed)
		late := p.open(p.alice, p.bob)
		for name, c := range map[string]net.Conn{"waiting": waiting, "late": late} {
			if _, err := c.Read(make([]byte, 1)); !isReset(err, CodeStreamRefused) {
				p.Errorf("the %s stream reads %v", name, err)
			}
			_ = c.Close()
		}
		time.Sleep(time.Minute) // the open stream goes on
		data := random(10_000)
		go func() {
			_, _ = p.accepted.Write(data)
			_ = p.accepted.Close()
		}()
		if got, err := io.ReadAll(p.dialed); err != nil || !bytes.Equal(got, data) {
			p.Errorf("read %d bytes, %v", len(got), err)
		}
		time.Sleep(2 * listenedIdle)
		if p.dialed.Conn().Err() == nil {
			p.Error("the connection is open")
		}
	})
}

// TestListenerIsReplaced checks that a client with an open stream reaches the server's next
// listener.
func TestListenerIsReplaced(t *testing.T) {
	runPipe(t, func(p *pipe) {
		_ = p.listener.Close()
		refused := p.open(p.alice, p.bob)
		if _, err := refused.Read(make([]byte, 1)); !isReset(err, CodeStreamRefused) {
			p.Fatalf("read: %v", err)
		}
		_ = refused.Close()
		next := p.bob.Listener()
		c := p.open(p.alice, p.bob)
		if c.(*StreamConn).Conn() == p.dialed.Conn() {
			p.Fatal("the connection that refuses streams is used")
		}
		p.accept(next)
		p.alive(p.dialed.Conn())
	})
}

// isReset says whether err is that of a stream that the peer has cancelled with a code.
func isReset(err error, code quic.StreamErrorCode) bool {
	var reset *quic.StreamError
	return errors.As(err, &reset) && reset.Remote && reset.ErrorCode == code
}

// TestListenerAcceptWaits checks that Accept ends when the listener or the endpoint is closed.
func TestListenerAcceptWaits(t *testing.T) {
	runLab(t, func(l *lab) {
		for name, test := range map[string]struct {
			close func(*host, net.Listener) error
			not   error
		}{
			"listener": {func(_ *host, n net.Listener) error { return n.Close() }, ErrClosed},
			"endpoint": {func(h *host, _ net.Listener) error { return h.Close() }, io.EOF},
		} {
			h := l.host(nil)
			listener := h.Listener()
			accepted := make(chan error, 1)
			go func() {
				_, err := listener.Accept()
				accepted <- err
			}()
			time.Sleep(time.Second)
			if err := test.close(h, listener); err != nil {
				l.Errorf("%s: close: %v", name, err)
			}
			l.want(<-accepted, "accept", net.ErrClosed, test.not)
			if err := listener.Close(); err != nil {
				l.Errorf("%s: close again: %v", name, err)
			}
		}
	})
}

// TestListenerTakesConnections checks that neither Accept nor another listener takes
// connections while there is a listener, and that both may after it.
func TestListenerTakesConnections(t *testing.T) {
	runLab(t, func(l *lab) {
		server, client := l.host(nil), l.host(nil)
		before := make(chan error, 1)
		go func() {
			_, err := server.Accept(l.Context())
			before <- err
		}()
		time.Sleep(time.Second)
		first, second := server.Listener(), server.Listener()
		if err := <-before; !errors.Is(err, ErrListening) {
			l.Errorf("the call of Accept before the listener returns %v", err)
		}
		if _, err := server.Accept(l.Context()); !errors.Is(err, ErrListening) {
			l.Errorf("accept: %v", err)
		}
		for range 2 {
			_, err := second.Accept()
			l.want(err, "accept", ErrListening, net.ErrClosed)
		}
		_ = second.Close()
		l.open(client, server)
		l.accept(first)
		_ = first.Close()
		go func() {
			_, err := server.Accept(l.Context())
			before <- err
		}()
		if _, err := client.Dial(l.Context(), server.ID(), nil); err != nil {
			l.Error(err)
		}
		if err := <-before; err != nil {
			l.Error(err)
		}
		third := server.Listener()
		if _, err := l.host(nil).DialContext(l.Context(), "tcp", server.ID().String()); err != nil {
			l.Error(err)
		}
		l.accept(third)
	})
}

// TestListenerWithoutRelay checks that servers try again while the relay does not answer, and
// give up when it is another one.
func TestListenerWithoutRelay(t *testing.T) {
	runLab(t, func(l *lab) {
		for _, test := range []struct {
			change    func(*Config)
			want      error
			temporary bool
		}{
			{func(c *Config) { c.Relay.Addr = "192.0.2.99:4433" }, ErrRelayUnreachable, true},
			{func(c *Config) { c.Relay.Pin = PeerID{1} }, ErrRelayMismatch, false},
			{func(c *Config) { c.Relay.Addr = "" }, ErrMalformedRelay, false},
		} {
			listener := l.host(test.change).Listener()
			for range 2 {
				_, err := listener.Accept()
				l.want(err, "accept", test.want, net.ErrClosed)
				var e interface{ Temporary() bool } // as http.Server asks
				if !errors.As(err, &e) || e.Temporary() != test.temporary {
					l.Errorf("%v, want temporary %v", err, test.temporary)
				}
			}
		}
	})
}

// TestConnListener checks that either side of a connection can listen, and what Accept returns
// when the connection or the listener has ended.
func TestConnListener(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.host(nil), l.host(nil))
		for _, s := range [][2]*Conn{{a, b}, {b, a}} {
			listener := s[1].Listener()
			c, err := s[0].DialContext(l.Context(), "tcp", "anything:80")
			if err != nil {
				l.Fatal(err)
			}
			_, _ = io.WriteString(c, "hello")
			_ = c.Close()
			if got, err := io.ReadAll(l.accept(listener)); err != nil || string(got) != "hello" {
				l.Errorf("read %q, %v", got, err)
			}
			if _, err := s[0].DialContext(l.Context(), "tcp", ""); err != nil {
				l.Fatal(err)
			}
			time.Sleep(time.Second)
			_ = listener.Close() // while a stream waits
			if _, err = listener.Accept(); err == nil {
				l.Fatal("a closed listener accepts")
			}
			l.want(err, "accept", net.ErrClosed, io.EOF)
			l.accept(s[1].Listener())
			l.alive(a, b)
		}
		time.AfterFunc(time.Second, func() { _ = a.CloseWithError(7, "bye") })
		_, err := b.Listener().Accept()
		l.want(err, "accept", syscall.ECONNRESET, net.ErrClosed)
		_, err = a.Listener().Accept()
		l.want(err, "accept", net.ErrClosed, syscall.ECONNRESET)
		_, err = a.DialContext(l.Context(), "udp", "")
		l.want(err, "dial", net.UnknownNetworkError("udp"), io.EOF)
		_, err = a.DialContext(l.Context(), "tcp", "")
		l.want(err, "dial", net.ErrClosed, io.EOF)
	})
}
