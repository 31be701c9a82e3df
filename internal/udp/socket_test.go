package udp

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// listen opens a socket on the loopback interface, and closes it at the end of the test.
func listen(t testing.TB, network, address string, cfg *Config) *Socket {
	t.Helper()
	sockets, err := Listen(context.Background(), network, address, 1, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sockets[0].Close() })
	if err := sockets[0].SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return sockets[0]
}

// receive reads messages until there are n datagrams, each of which comes soon, and copies them.
func receive(t testing.TB, s *Socket, n int) []Message {
	t.Helper()
	var all []Message
	ms := make([]Message, 64)
	for n > 0 {
		if err := s.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		got, err := s.ReadBatch(ms)
		if err != nil {
			t.Fatalf("%d datagrams missing: %v", n, err)
		}
		for _, m := range ms[:got] {
			n -= m.Count()
			m.Data = bytes.Clone(m.Data)
			all = append(all, m)
		}
	}
	return all
}

// writeInOrder writes messages so that they arrive in order.
func writeInOrder(t testing.TB, s *Socket, ms []Message) {
	t.Helper()
	nettest.OnOneCPU(t, func() {
		if err := s.WriteBatch(ms); err != nil {
			t.Fatal(err)
		}
	})
}

// datagrams returns the datagrams of messages in order.
func datagrams(ms []Message) (all [][]byte) {
	for i := range ms {
		for data := range ms[i].Segments() {
			all = append(all, data)
		}
	}
	return all
}

// pattern returns n bytes that show where they belong.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8)
	}
	return b
}

// sockets are all kinds of Socket that this system has.
func sockets(t *testing.T, f func(t *testing.T, a, b *Socket)) {
	for name, cfg := range map[string]*Config{
		"default": nil,
		"no GSO":  {DisableGSO: true},
		"no GRO":  {DisableGRO: true},
		"neither": {DisableGSO: true, DisableGRO: true},
	} {
		t.Run("IPv4/"+name, func(t *testing.T) {
			f(t, listen(t, "udp4", "127.0.0.1:0", cfg), listen(t, "udp4", "127.0.0.1:0", cfg))
		})
		t.Run("IPv6/"+name, func(t *testing.T) {
			f(t, listen(t, "udp6", "[::1]:0", cfg), listen(t, "udp6", "[::1]:0", cfg))
		})
	}
	t.Run("in process", func(t *testing.T) {
		network := nettest.New(1)
		var both []*Socket
		for _, addr := range []string{"192.0.2.1:1", "192.0.2.2:2"} {
			s, err := New(network.Listen(addr), nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			both = append(both, s)
		}
		f(t, both[0], both[1])
	})
}

// TestRoundTrip sends single datagrams, empty ones and trains in one batch.
func TestRoundTrip(t *testing.T) {
	sockets(t, func(t *testing.T, a, b *Socket) {
		to := b.LocalAddr()
		batch := []Message{
			{Data: pattern(1200), Remote: to},
			{Data: pattern(1), Remote: to},
			{Data: pattern(10*1200 + 7), SegmentSize: 1200, Remote: to},
			{Data: pattern(100 * 500), SegmentSize: 500, Remote: to}, // more than the kernel takes at once
		}
		writeInOrder(t, a, batch)
		want := datagrams(batch)
		got := receive(t, b, len(want))
		for _, m := range got {
			if m.Remote != a.LocalAddr() {
				t.Errorf("from %v, want %v", m.Remote, a.LocalAddr())
			}
		}
		for i, data := range datagrams(got) {
			if !bytes.Equal(data, want[i]) {
				t.Fatalf("datagram %d: %d bytes, want %d", i, len(data), len(want[i]))
			}
		}
		if s := a.Stats(); s.TxPackets != uint64(len(want)) || s.TxErrors != 0 {
			t.Errorf("sender counts %+v, want %d packets", s, len(want))
		}
		if s := b.Stats(); s.RxPackets != uint64(len(want)) || s.RxErrors != 0 || s.RxOverflow != 0 {
			t.Errorf("receiver counts %+v, want %d packets", s, len(want))
		}
	})
}

// TestSwitchGSOOff checks that trains arrive packet by packet when GSO is switched off.
func TestSwitchGSOOff(t *testing.T) {
	a, b := listen(t, "udp", "127.0.0.1:0", nil), listen(t, "udp", "127.0.0.1:0", &Config{DisableGRO: true})
	a.SetGSO(false)
	train := Message{Data: pattern(5 * 1000), SegmentSize: 1000, Remote: b.LocalAddr()}
	if err := a.Write(&train); err != nil {
		t.Fatal(err)
	}
	got := receive(t, b, 5)
	if len(got) != 5 || a.GSO() {
		t.Errorf("%d messages, GSO %v", len(got), a.GSO())
	}
}

// TestBadDestination checks that a message that the kernel refuses does not affect the
// others in the batch.
func TestBadDestination(t *testing.T) {
	a, b := listen(t, "udp4", "127.0.0.1:0", nil), listen(t, "udp4", "127.0.0.1:0", nil)
	bad := netip.MustParseAddrPort("[2001:db8::1]:1") // not for a socket of IPv4
	batch := []Message{
		{Data: []byte("one"), Remote: b.LocalAddr()},
		{Data: []byte("lost"), Remote: bad},
		{Data: []byte("lost"), Remote: netip.AddrPortFrom(b.LocalAddr().Addr(), 0)},
		{Data: []byte("two"), Remote: b.LocalAddr()},
	}
	nettest.OnOneCPU(t, func() {
		if err := a.WriteBatch(batch); err == nil {
			t.Error("no error")
		}
	})
	if got := datagrams(receive(t, b, 2)); string(got[0]) != "one" || string(got[1]) != "two" {
		t.Errorf("received %q", got)
	}
	if s := a.Stats(); s.TxErrors != 2 || s.TxPackets != 2 {
		t.Errorf("%d sent, %d errors, want 2 and 2", s.TxPackets, s.TxErrors)
	}
}

// TestICMPIsNotFatal checks that ICMP errors from an address where nobody listens do not
// make the socket fail.
func TestICMPIsNotFatal(t *testing.T) {
	a, b := listen(t, "udp", "127.0.0.1:0", nil), listen(t, "udp", "127.0.0.1:0", nil)
	closed := listen(t, "udp", "127.0.0.1:0", nil)
	closed.Close()
	for range 20 {
		a.Write(&Message{Data: []byte("knock"), Remote: closed.LocalAddr()})
	}
	if err := b.Write(&Message{Data: []byte("hi"), Remote: a.LocalAddr()}); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, a, 1); string(got[0].Data) != "hi" {
		t.Errorf("received %q", got[0].Data)
	}
}

func TestMessageTooLong(t *testing.T) {
	a, b := listen(t, "udp4", "127.0.0.1:0", nil), listen(t, "udp4", "127.0.0.1:0", nil)
	err := a.Write(&Message{Data: make([]byte, 65_508), Remote: b.LocalAddr()})
	if !IsMessageTooLong(err) {
		t.Errorf("%v, want an error about the length", err)
	}
}

func TestCloseUnblocks(t *testing.T) {
	sockets(t, func(t *testing.T, a, _ *Socket) {
		done := make(chan error)
		go func() {
			_, err := a.ReadBatch(make([]Message, 8))
			done <- err
		}()
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("read returns %v, want %v", err, net.ErrClosed)
		}
		if err := a.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
		if err := a.Write(&Message{Data: []byte("x"), Remote: a.LocalAddr()}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write returns %v, want %v", err, net.ErrClosed)
		}
	})
}

func TestReadDeadline(t *testing.T) {
	sockets(t, func(t *testing.T, a, _ *Socket) {
		if err := a.SetReadDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := a.ReadBatch(make([]Message, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v, want %v", err, os.ErrDeadlineExceeded)
		}
	})
}

func TestNewRefusesOtherConns(t *testing.T) {
	if _, err := New(otherConn{}, nil); err == nil {
		t.Error("made a socket of a conn that has no UDP address")
	}
}

// otherConn is a conn whose address is not a UDP address.
type otherConn struct{ net.PacketConn }

func (otherConn) LocalAddr() net.Addr { return &net.UnixAddr{Name: "socket", Net: "unixgram"} }

func TestListenClosesAllOnError(t *testing.T) {
	if _, err := Listen(t.Context(), "udp", "no address", 1, nil); err == nil {
		t.Error("listens on no address")
	}
	if !CanShard {
		if _, err := Listen(t.Context(), "udp", "127.0.0.1:0", 2, nil); !errors.Is(err, ErrShards) {
			t.Errorf("%v, want %v", err, ErrShards)
		}
	}
}
