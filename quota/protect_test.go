package quota

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
)

// TestSocketKeepsOffloads checks that a protected transport on a UDP socket uses ECN and
// GSO where an unprotected one does, and that its filter works.
func TestSocketKeepsOffloads(t *testing.T) {
	c := mustNew(t, nil)
	plain, protected := gso(t, nil), gso(t, c)
	if plain != protected {
		t.Errorf("GSO is %v without protection and %v with it", plain, protected)
	}
	if runtime.GOOS == "linux" && !protected {
		t.Log("this kernel has no GSO")
	}
	if s := c.Stats(); s.Admitted != 1 || s.Passed[PassNew] != 1 || s.Passed[PassFlow]+s.Passed[PassContinuing] == 0 || s.Passed[PassOther] == 0 {
		t.Errorf("counted %+v", s)
	}
	deadline := time.Now().Add(10 * time.Second)
	for c.Stats().Connections > 0 && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	wantLive(t, c, 0, 0)
}

// gso sends data over loopback, and reports whether the server's connection uses GSO.
func gso(t *testing.T, c *Controller) bool {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tr := &quic.Transport{Conn: conn}
	if c != nil {
		if err := c.Protect(tr); err != nil {
			t.Fatal(err)
		}
	}
	defer tr.Close()
	ln, err := tr.Listen(&tls.Config{Certificates: []tls.Certificate{certificate(t)}, NextProtos: []string{"x"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var accepting QUICListener = ln
	if c != nil {
		accepting = c.Listener(ln)
	}
	type result struct {
		gso bool
		err error
	}
	done := make(chan result, 1)
	go func() {
		server, err := accepting.Accept(context.Background())
		if err != nil {
			done <- result{err: err}
			return
		}
		if c != nil && c.Stats().Connections != 1 {
			t.Errorf("an accepted connection is counted as %+v", c.Stats())
		}
		stream, err := server.AcceptStream(context.Background())
		if err == nil {
			_, err = stream.Write(make([]byte, 1<<20))
			stream.Close()
		}
		done <- result{server.ConnectionState().GSO, err}
		<-server.Context().Done()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client, err := quic.DialAddr(ctx, conn.LocalAddr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"x"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := client.OpenStreamSync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stream.Write([]byte("x"))
	if n, err := io.Copy(io.Discard, stream); n != 1<<20 || err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	client.CloseWithError(0, "")
	got := <-done
	if got.err != nil {
		t.Fatal(got.err)
	}
	return got.gso
}

// batch is a socket with a number of packets.
type batch struct {
	*net.UDPConn
	packets []string // "address payload"
}

func (b *batch) ReadBatch(ms []ipv4.Message, _ int) (int, error) {
	if len(b.packets) == 0 {
		return 0, net.ErrClosed
	}
	n := min(len(ms), len(b.packets))
	for i, p := range b.packets[:n] {
		ms[i].N = copy(ms[i].Buffers[0], p[10:])
		ms[i].NN = copy(ms[i].OOB, p[10:11])
		ms[i].Flags = int(p[10])
		ms[i].Addr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(p[:9]), 1))
	}
	b.packets = b.packets[n:]
	return n, nil
}

// TestBatchKeepsPlaces checks that messages that pass are moved to the front of a batch,
// into the buffers of the messages there.
func TestBatchKeepsPlaces(t *testing.T) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := mustNew(t, nil)
	if err := c.Deny(netip.MustParsePrefix("192.0.2.1/32"), 0, ""); err != nil {
		t.Fatal(err)
	}
	below := &batch{UDPConn: conn, packets: []string{
		"192.0.2.1 a", "192.0.2.2 b", "192.0.2.1 c", "192.0.2.3 dd",
		"192.0.2.1 e", "192.0.2.1 f", "192.0.2.1 g", "192.0.2.1 h",
		"192.0.2.4 i",
	}}
	filtered, ok := c.PacketConn(below, 4).(batchReader)
	if !ok {
		t.Fatal("the conn reads no batches")
	}
	ms := make([]ipv4.Message, 4)
	memory := make([][]byte, len(ms))
	for i := range ms {
		memory[i] = make([]byte, 16)
		ms[i].Buffers, ms[i].OOB = [][]byte{memory[i]}, make([]byte, 16)
	}
	for _, want := range [][]string{{"192.0.2.2:1 b b", "192.0.2.3:1 dd d"}, {"192.0.2.4:1 i i"}} {
		n, err := filtered.ReadBatch(ms, 0)
		if err != nil || n != len(want) {
			t.Fatalf("got %d, %v, want %d", n, err, len(want))
		}
		for i, m := range ms[:n] {
			if got := m.Addr.String() + " " + string(memory[i][:m.N]) + " " + string(m.OOB[:m.NN]); got != want[i] || m.Flags != int(memory[i][0]) || &m.Buffers[0][0] != &memory[i][0] {
				t.Errorf("place %d has %q, want %q", i, got, want[i])
			}
		}
	}
	if _, err := filtered.ReadBatch(ms, 0); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want that of the conn below", err)
	}
}

// TestProtectKeepsHooks checks that the hooks of a transport are still called.
func TestProtectKeepsHooks(t *testing.T) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := mustNew(t, &Config{Source: Limits{Connections: 1}})
	refusal := errors.New("no")
	var next error
	tr := &quic.Transport{
		Conn:                conn,
		VerifySourceAddress: func(net.Addr) bool { return next != nil },
		ConnContext: func(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
			if SlotOf(ctx) == nil {
				t.Error("the hook sees no slot")
			}
			return context.Background(), next // of no relation
		},
	}
	if err := c.Protect(tr); err != nil {
		t.Fatal(err)
	}
	from := net.UDPAddrFromAddrPort(addr("192.0.2.1:1"))
	ctx, cancel := context.WithCancel(t.Context())
	if tr.VerifySourceAddress(from) {
		t.Error("got a Retry without a reason")
	}
	if _, err := tr.ConnContext(ctx, &quic.ClientInfo{RemoteAddr: from, AddrVerified: true}); err != nil {
		t.Fatal(err)
	}
	wantLive(t, c, 0, 1)
	if _, err := tr.ConnContext(t.Context(), &quic.ClientInfo{RemoteAddr: from, AddrVerified: true}); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want ErrRefused", err)
	}
	cancel()
	for c.Stats().HalfOpen > 0 { // AfterFunc has its own goroutine
		runtime.Gosched()
	}
	next = refusal
	if !tr.VerifySourceAddress(from) {
		t.Error("the transport's own hook is not asked")
	}
	other := net.UDPAddrFromAddrPort(addr("192.0.2.2:1"))
	if _, err := tr.ConnContext(t.Context(), &quic.ClientInfo{RemoteAddr: other, AddrVerified: true}); err != refusal {
		t.Errorf("got %v, want what the hook says", err)
	}
	wantLive(t, c, 0, 0)
	if err := c.Protect(&quic.Transport{}); err == nil {
		t.Error("protected nothing")
	}
}

// TestDialFromProtected checks that a protected transport can dial an address that is over
// quota, with connection IDs as long as those of clients.
func TestDialFromProtected(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		c := mustNew(t, &Config{Excess: Drop, Source: Limits{Connections: 1}})
		slot := wantAdmit(t, c, serverAddr, true, PassNew)
		defer slot.Release()
		conn := l.net.Listen("198.51.100.1:1000")
		tr := &quic.Transport{Conn: conn, ConnectionIDLength: 12}
		if err := c.Protect(tr); err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		defer tr.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		out, err := tr.Dial(ctx, net.UDPAddrFromAddrPort(addr(serverAddr)), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		out.CloseWithError(0, "")
	})
}

// TestProtectInUse checks that a transport that is in use cannot be protected.
func TestProtectInUse(t *testing.T) {
	conf := &tls.Config{Certificates: []tls.Certificate{certificate(t)}, NextProtos: []string{"h3"}}
	for name, use := range map[string]func(*quic.Transport) error{
		"listen": func(tr *quic.Transport) error { _, err := tr.Listen(conf, nil); return err },
		"early":  func(tr *quic.Transport) error { _, err := tr.ListenEarly(conf, nil); return err },
		"dial": func(tr *quic.Transport) error {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, _ = tr.Dial(ctx, tr.Conn.LocalAddr(), &tls.Config{NextProtos: []string{"h3"}}, nil)
			return nil
		},
		"write": func(tr *quic.Transport) error { _, err := tr.WriteTo([]byte{1}, tr.Conn.LocalAddr()); return err },
		"closed": func(tr *quic.Transport) error {
			_, err := tr.Listen(conf, nil)
			return errors.Join(err, tr.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			tr := &quic.Transport{Conn: conn}
			if err := mustNew(t, nil).Protect(tr); err != nil {
				t.Errorf("before its first use: %v", err)
			}
			tr = &quic.Transport{Conn: conn}
			if err := use(tr); err != nil {
				t.Fatal(err)
			}
			defer tr.Close()
			if err := mustNew(t, nil).Protect(tr); err == nil {
				t.Error("protected a transport in use")
			}
			if tr.Conn != conn || tr.ConnContext != nil || tr.VerifySourceAddress != nil {
				t.Error("the transport was changed")
			}
		})
	}
}
