package udp

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/pki"
	"github.com/quicway/quicway/internal/test/nettest"
)

// pump delivers everything that a socket reads to a conn, until the socket is closed.
func pump(s *Socket, c Conn) {
	ms := make([]Message, 64)
	for {
		n, err := s.ReadBatch(ms)
		if err != nil {
			return
		}
		for i := range ms[:n] {
			c.Deliver(&ms[i])
		}
	}
}

// overVirtual makes a virtual conn that reads from and writes to a socket.
func overVirtual(t *testing.T, s *Socket) Conn {
	t.Helper()
	c, err := NewVirtual(&VirtualConfig{Socket: s, Send: s.Write})
	if err != nil {
		t.Fatal(err)
	}
	go pump(s, c)
	return c
}

// transfer sends n bytes over QUIC between two conns, and returns quic-go's connection
// state of the sender.
func transfer(t *testing.T, from, to Conn, n int) quic.ConnectionState {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.SelfSigned(key)
	if err != nil {
		t.Fatal(err)
	}
	serverTransport, clientTransport := &quic.Transport{Conn: to}, &quic.Transport{Conn: from}
	listener, err := serverTransport.Listen(&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"x"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sum := make(chan [32]byte, 1)
	go func() {
		conn, err := listener.Accept(context.Background())
		if err != nil {
			t.Error(err)
			return
		}
		stream, err := conn.AcceptUniStream(context.Background())
		if err != nil {
			t.Error(err)
			return
		}
		h := sha256.New()
		if _, err := io.Copy(h, stream); err != nil {
			t.Error(err)
		}
		sum <- [32]byte(h.Sum(nil))
	}()
	conn, err := clientTransport.Dial(t.Context(), to.LocalAddr(), &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"x"}, // this tests conns, not peers
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := conn.OpenUniStream()
	if err != nil {
		t.Fatal(err)
	}
	data := pattern(n)
	if _, err := stream.Write(data); err != nil {
		t.Fatal(err)
	}
	stream.Close()
	if got := <-sum; got != sha256.Sum256(data) {
		t.Error("other bytes arrived")
	}
	state := conn.ConnectionState()
	conn.CloseWithError(0, "")
	clientTransport.Close()
	serverTransport.Close()
	return state
}

// TestVirtualOverKernel checks that quic-go uses GSO on a virtual conn over a UDP socket,
// and sends trains.
func TestVirtualOverKernel(t *testing.T) {
	a, b := listen(t, "udp", "127.0.0.1:0", nil), listen(t, "udp", "127.0.0.1:0", nil)
	a.SetReadDeadline(time.Time{})
	b.SetReadDeadline(time.Time{})
	state := transfer(t, overVirtual(t, a), overVirtual(t, b), 8<<20)
	if runtime.GOOS != "linux" {
		return
	}
	if state.GSO != a.GSO() {
		t.Errorf("quic-go has GSO %v, the socket %v", state.GSO, a.GSO())
	}
	if s := a.Stats(); s.TxPackets < 2*s.TxBatches {
		t.Errorf("%d packets in %d writes: no trains", s.TxPackets, s.TxBatches)
	}
}

// TestVirtualInProcess checks that a virtual conn over another conn has no out-of-band
// data.
func TestVirtualInProcess(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		network := nettest.New(1)
		network.Set(nettest.Conditions{Delay: 5 * time.Millisecond, Loss: 0.01})
		var sockets []*Socket
		for _, addr := range []string{"192.0.2.1:1", "192.0.2.2:2"} {
			s, err := New(network.Listen(addr), nil)
			if err != nil {
				t.Fatal(err)
			}
			sockets = append(sockets, s)
		}
		transfer(t, overVirtual(t, sockets[0]), overVirtual(t, sockets[1]), 1<<20)
		for _, s := range sockets {
			s.Close()
		}
		synctest.Wait()
	})
}

func newVirtual(t *testing.T, queue int) Conn {
	t.Helper()
	c, err := NewVirtual(&VirtualConfig{
		Socket: listen(t, "udp", "127.0.0.1:0", nil),
		Send:   func(*Message) error { return nil },
		Queue:  queue,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestVirtualQueue checks that packets beyond the size of the queue are dropped and
// counted, and that the others are read in order.
func TestVirtualQueue(t *testing.T) {
	c := newVirtual(t, 100)
	remote := netip.MustParseAddrPort("192.0.2.1:1")
	m := Message{Data: pattern(150 * 100), SegmentSize: 100, Remote: remote}
	if dropped := c.Deliver(&m); dropped != 50 {
		t.Errorf("dropped %d of 150, want 50", dropped)
	}
	if dropped := c.Deliver(&Message{Data: make([]byte, maxQueued+1), Remote: remote}); dropped != 1 {
		t.Errorf("dropped %d datagrams that are too long, want 1", dropped)
	}
	buf := make([]byte, 200)
	for i := range 100 {
		n, addr, err := c.ReadFrom(buf)
		if err != nil || addr.String() != remote.String() || !bytes.Equal(buf[:n], m.Data[i*100:(i+1)*100]) {
			t.Fatalf("datagram %d: %d bytes from %v, %v", i, n, addr, err)
		}
	}
	if dropped := c.Deliver(&m); dropped != 50 {
		t.Errorf("dropped %d of 150 once there was room, want 50", dropped)
	}
}

func TestVirtualClose(t *testing.T) {
	c := newVirtual(t, 0)
	done := make(chan error)
	go func() {
		_, _, err := c.ReadFrom(make([]byte, 10))
		done <- err
	}()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read returns %v, want %v", err, net.ErrClosed)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if _, err := c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write returns %v, want %v", err, net.ErrClosed)
	}
}

func TestVirtualDeadline(t *testing.T) {
	c := newVirtual(t, 0)
	done := make(chan error)
	go func() {
		_, _, err := c.ReadFrom(make([]byte, 10))
		done <- err
	}()
	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read returns %v, want %v", err, os.ErrDeadlineExceeded)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	c.Deliver(&Message{Data: []byte("late"), Remote: netip.MustParseAddrPort("192.0.2.1:1")})
	if n, _, err := c.ReadFrom(make([]byte, 10)); n != 4 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// TestVirtualReturnsOnlyMessageTooLong checks that quic-go gets the error that a packet is
// too long, which it needs for path MTU discovery, and no other error, because it would
// close the connection.
func TestVirtualReturnsOnlyMessageTooLong(t *testing.T) {
	socket := listen(t, "udp", "127.0.0.1:0", nil)
	conn := socket.Conn()
	_, tooLong := conn.WriteTo(make([]byte, 1<<16), conn.LocalAddr())
	if !IsMessageTooLong(tooLong) {
		t.Fatalf("64 KiB: %v", tooLong)
	}
	for _, test := range []struct{ sent, want error }{
		{nil, nil}, {tooLong, tooLong}, {errors.New("broken"), nil}, {os.ErrPermission, nil}, {net.ErrClosed, nil},
	} {
		c, err := NewVirtual(&VirtualConfig{Socket: socket, Send: func(*Message) error { return test.sent }})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.WriteTo([]byte("x"), conn.LocalAddr()); err != test.want {
			t.Errorf("error %v is returned as %v, want %v", test.sent, err, test.want)
		}
	}
	c, err := NewVirtual(&VirtualConfig{Socket: socket, Send: func(*Message) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteTo([]byte("x"), &net.TCPAddr{}); err == nil {
		t.Error("writes to an address of TCP")
	}
	if _, err := NewVirtual(&VirtualConfig{}); err == nil {
		t.Error("made a conn without a socket")
	}
}
