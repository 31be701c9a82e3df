package p2p

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// TestDialedPeer checks which addresses DialContext reads.
func TestDialedPeer(t *testing.T) {
	id := PeerID{1, 2, 3}
	for _, test := range []struct {
		network, address string
		want             error
	}{
		{"tcp", id.String(), nil},
		{"quicway", id.String() + ":443", nil},
		{"tcp4", strings.ToUpper(id.String()) + ":http", nil},
		{"tcp6", id.String() + ":", nil},
		{"udp", id.String(), net.UnknownNetworkError("udp")},
		{"", id.String(), net.UnknownNetworkError("")},
		{"tcp", "", ErrMalformedPeerID},
		{"tcp", ":80", ErrMalformedPeerID},
		{"tcp", "example.org:80", ErrMalformedPeerID},
		{"tcp", "[::1]:80", ErrMalformedPeerID},
		{"tcp", id.String()[1:], ErrMalformedPeerID},
	} {
		if got, err := dialedPeer(test.network, test.address); !errors.Is(err, test.want) || err == nil && got != id {
			t.Errorf("%q, %q: %v, %v, want %v", test.network, test.address, got, err, test.want)
		}
	}
	if n := len(id.String()); n > 63 {
		t.Errorf("a PeerID has %d characters, more than a label of a host name", n)
	}
}

// TestDialsShareConnection checks that streams of one peer share a connection, which is closed
// when it has not been used for a minute, and dialed again.
func TestDialsShareConnection(t *testing.T) {
	runLab(t, func(l *lab) {
		client, server, other := l.host(nil), l.host(nil), l.host(nil)
		go drain(server.Listener())
		go drain(other.Listener())
		var streams [10]*StreamConn
		var dials sync.WaitGroup
		for i := range streams {
			dials.Go(func() { streams[i] = l.open(client, server).(*StreamConn) })
		}
		dials.Wait()
		conn := streams[0].Conn()
		for _, s := range streams {
			if s.Conn() != conn {
				l.Error("a second connection was dialed")
			}
		}
		if l.open(client, other).(*StreamConn).Conn() == conn {
			l.Error("two peers have one connection")
		}
		for _, s := range streams[1:] {
			_ = s.Close()
		}
		time.Sleep(2 * dialedIdle)
		l.alive(conn)
		_ = streams[0].Close()
		time.Sleep(dialedIdle - time.Second)
		if l.open(client, server).(*StreamConn).Conn() != conn {
			l.Error("the connection is not used again")
		}
		time.Sleep(2 * time.Second)
		l.alive(conn)
		streams[1] = l.open(client, server).(*StreamConn)
		_ = streams[1].Close()
		_ = conn.CloseWithError(0, "") // as if it had ended by itself
		again := l.open(client, server)
		if again.(*StreamConn).Conn() == conn {
			l.Error("the connection that has ended is used")
		}
		_ = again.Close()
		time.Sleep(dialedIdle + time.Second)
		if again.(*StreamConn).Conn().Err() == nil {
			l.Error("the idle connection is open")
		}
		if _, n := client.dialedTo(server.ID()); n != 1 {
			l.Errorf("%d peers are remembered, want the one with an open stream", n)
		}
		last, _ := client.dialedTo(other.ID())
		_ = last.CloseWithError(0, "")
		time.Sleep(time.Second)
		if _, n := client.dialedTo(other.ID()); n != 0 {
			l.Errorf("%d peers are remembered, and all connections have ended", n)
		}
	})
}

// TestPeerIsAskedOnce checks that many calls at a time ask a silent peer only once.
func TestPeerIsAskedOnce(t *testing.T) {
	c := newSharedConn(&Conn{outbox: make(chan frame, outboxSize)}, nil)
	now := time.Now()
	for i := range 1000 {
		if asked := c.ask(now.Add(time.Duration(i) * time.Millisecond)); asked != now {
			t.Fatalf("call %d: asked at %v, want %v", i, asked, now)
		}
	}
	later := now.Add(time.Second)
	if asked := c.ask(later); asked != later || len(c.outbox) != 2 {
		t.Errorf("asked at %v with %d frames, want %v, 2 frames", asked, len(c.outbox), later)
	}
}

// dialedTo returns the connection that calls of DialContext to a peer share, and to how many
// peers there is one.
func (h *host) dialedTo(peer PeerID) (*Conn, int) {
	h.dialed.mu.Lock()
	defer h.dialed.mu.Unlock()
	if c := h.dialed.peers[peer]; c != nil && c.conn != nil {
		return c.conn.Conn, len(h.dialed.peers)
	}
	return nil, len(h.dialed.peers)
}

// drain accepts all streams, and reads them.
func drain(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}()
	}
}

// TestDialIsShared checks that a caller that leaves does not end an attempt for others, and
// that the attempt ends when all have left.
func TestDialIsShared(t *testing.T) {
	runLab(t, func(l *lab) {
		client, server := l.host(nil), l.host(nil)
		impatient, leave := context.WithTimeoutCause(l.Context(), time.Second, errors.New("impatient"))
		defer leave()
		errs := make(chan error, 2)
		dial := func(ctx context.Context) {
			_, err := client.DialContext(ctx, "tcp", server.ID().String())
			errs <- err
		}
		go dial(impatient)
		go dial(l.Context())
		l.want(<-errs, "dial", context.Cause(impatient), net.ErrClosed)
		go drain(server.Listener())
		if err := <-errs; err != nil {
			l.Errorf("the patient caller: %v", err)
		}

		absent := l.host(nil)
		ctx, cancel := context.WithCancel(l.Context())
		for range 2 {
			go func() {
				_, err := client.DialContext(ctx, "tcp", absent.ID().String())
				errs <- err
			}()
		}
		time.Sleep(time.Second)
		legs := l.server.Stats().Legs
		cancel()
		for range 2 {
			l.want(<-errs, "dial", context.Canceled, net.ErrClosed)
		}
		time.Sleep(30 * time.Second) // the relay forgets the leg
		_, peers := client.dialedTo(absent.ID())
		if now := l.server.Stats().Legs; now >= legs || peers != 1 {
			l.Errorf("%d legs, then %d, %d peers: the attempt goes on", legs, now, peers)
		}
	})
}

// TestDialFails checks the errors of attempts that fail: all callers get them, and the next
// call tries again.
func TestDialFails(t *testing.T) {
	runLab(t, func(l *lab) {
		client := l.host(func(c *Config) { c.OfferTTL = 5 * time.Second })
		server := l.host(nil)
		for range 2 {
			_, err := client.DialContext(l.Context(), "tcp", server.ID().String())
			l.want(err, "dial", ErrOfferExpired, net.ErrClosed)
		}
		go drain(server.Listener())
		l.open(client, server)
		waits := make(chan error, 1)
		go func() {
			_, err := client.DialContext(l.Context(), "tcp", l.host(nil).ID().String())
			waits <- err
		}()
		time.Sleep(time.Second)
		_ = client.Close()
		l.want(<-waits, "dial", ErrClosed, io.EOF)
		for range 2 {
			_, err := client.DialContext(l.Context(), "tcp", server.ID().String())
			l.want(err, "dial", ErrClosed, io.EOF)
		}
	})
}

// TestDialWaitsForStream checks that a dial waits when the peer allows no more streams, until
// one is closed, its context is done, or the connection ends: then it dials another one.
func TestDialWaitsForStream(t *testing.T) {
	runLab(t, func(l *lab) {
		client := l.host(nil)
		server := l.host(func(c *Config) { c.QUIC = &quic.Config{MaxIncomingStreams: 3} })
		go drain(server.Listener())
		first := l.open(client, server)
		l.open(client, server) // with the signalling stream, that is all
		ctx, cancel := context.WithTimeout(l.Context(), time.Second)
		defer cancel()
		_, err := client.DialContext(ctx, "tcp", server.ID().String())
		l.want(err, "dial", context.DeadlineExceeded, net.ErrClosed)
		time.AfterFunc(time.Second, func() { _ = first.Close() })
		l.open(client, server)
		conn, _ := client.dialedTo(server.ID())
		time.AfterFunc(time.Second, func() { _ = conn.CloseWithError(0, "") }) // as if it had ended by itself
		if l.open(client, server).(*StreamConn).Conn() == conn {
			l.Error("a stream of a connection that has ended")
		}
	})
}

// TestPeerIsRestarted checks that the next dial reaches a peer that was killed and has been
// started anew, although its old connection has not ended yet.
func TestPeerIsRestarted(t *testing.T) {
	runLab(t, func(l *lab) {
		identity, err := NewIdentity()
		if err != nil {
			l.Fatal(err)
		}
		same := func(c *Config) { c.Identity = identity }
		client, killed := l.host(nil), l.host(same)
		go drain(killed.Listener())
		old := l.open(client, killed).(*StreamConn)
		l.net.Cut("198.51.100.2", "192.0.2.1")
		time.Sleep(2 * heardLately)
		server := l.host(same)
		listener := server.Listener()
		began := time.Now()
		c := l.open(client, server)
		if after := time.Since(began); after > answerPatience+5*time.Second || old.Conn().Err() != nil {
			l.Errorf("dialed after %v; the old connection has ended: %v", after, old.Conn().Err())
		}
		_, _ = io.WriteString(c, "hello")
		_ = c.Close()
		if got, err := io.ReadAll(l.accept(listener)); err != nil || string(got) != "hello" {
			l.Errorf("read %q, %v", got, err)
		}
		_, err = old.Read(make([]byte, 1))
		l.want(err, "read", syscall.ECONNRESET, net.ErrClosed)
		l.net.Mend("198.51.100.2", "192.0.2.1")
	})
}
