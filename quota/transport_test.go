package quota

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlogwriter"
	"golang.org/x/net/ipv4"

	"github.com/quicway/quicway/internal/udp"
)

// TestSocketKeepsOffloads checks that a transport of a controller on a UDP socket uses ECN and
// GSO where a plain one does, and that its filter works.
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
	accepting, closeTransport := listenFor(t, c, conn)
	defer closeTransport()
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

// listenFor listens with a transport of a controller, or with a plain one if c is nil.
func listenFor(t *testing.T, c *Controller, conn net.PacketConn) (_ quicListener, closeTransport func() error) {
	t.Helper()
	plain := &quic.Transport{Conn: conn}
	if c == nil {
		ln, err := plain.Listen(serverTLS(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		return ln, plain.Close
	}
	tr, err := c.Transport(plain)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tr.Listen(serverTLS(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	return ln, tr.Close
}

// serverTLS is a configuration for a server of protocol "x".
func serverTLS(t *testing.T) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certificate(t)}, NextProtos: []string{"x"}}
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

// TestTransportKeepsHooks checks that the hooks of a transport are still called, and that the
// context of a connection has its slot whatever context the user's hook returns.
func TestTransportKeepsHooks(t *testing.T) {
	c := mustNew(t, &Config{Source: Limits{Connections: 1}})
	refusal := errors.New("no")
	var next error
	tr, err := c.Transport(&quic.Transport{
		Conn:                loopback(t),
		VerifySourceAddress: func(net.Addr) bool { return next != nil },
		ConnContext: func(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
			if SlotOf(ctx) == nil {
				t.Error("the hook sees no slot")
			}
			return context.Background(), next // of no relation
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	inner := tr.quic
	from := net.UDPAddrFromAddrPort(addr("192.0.2.1:1"))
	ctx, cancel := context.WithCancel(t.Context())
	if inner.VerifySourceAddress(from) {
		t.Error("got a Retry without a reason")
	}
	if out, err := inner.ConnContext(ctx, &quic.ClientInfo{RemoteAddr: from, AddrVerified: true}); err != nil || SlotOf(out) == nil {
		t.Fatalf("the connection has slot %v, %v", SlotOf(out), err)
	}
	wantLive(t, c, 0, 1)
	if _, err := inner.ConnContext(t.Context(), &quic.ClientInfo{RemoteAddr: from, AddrVerified: true}); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want ErrRefused", err)
	}
	cancel()
	for end := time.Now().Add(20 * time.Second); c.Stats().HalfOpen > 0; { // AfterFunc has its own goroutine
		if time.Now().After(end) {
			t.Fatal("the slot is not released")
		}
		runtime.Gosched()
	}
	next = refusal
	if !inner.VerifySourceAddress(from) {
		t.Error("the transport's own hook is not asked")
	}
	other := net.UDPAddrFromAddrPort(addr("192.0.2.2:1"))
	if _, err := inner.ConnContext(t.Context(), &quic.ClientInfo{RemoteAddr: other, AddrVerified: true}); err != refusal {
		t.Errorf("got %v, want what the hook says", err)
	}
	wantLive(t, c, 0, 0)
}

// TestTransportKeepsSettings checks that a transport has all settings of the one that it was
// made from, also those of later versions of quic-go.
func TestTransportKeepsSettings(t *testing.T) {
	from := &quic.Transport{
		Conn: loopback(t), ConnectionIDLength: 12, ConnectionIDGenerator: ids{}, StatelessResetKey: new(quic.StatelessResetKey),
		TokenGeneratorKey: new(quic.TokenGeneratorKey), MaxTokenAge: time.Hour, DisableVersionNegotiationPackets: true,
		VerifySourceAddress: func(net.Addr) bool { return false }, Tracer: tracer{loopback(t)},
		ConnContext: func(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) { return ctx, nil },
	}
	to := reflect.ValueOf(settings(from)).Elem()
	for field, value := range reflect.ValueOf(from).Elem().Fields() {
		if !field.IsExported() {
			continue
		}
		if value.IsZero() {
			t.Errorf("this test does not set %s", field.Name)
		}
		if to.FieldByName(field.Name).IsZero() {
			t.Errorf("%s is lost", field.Name)
		}
	}
}

// ids is a generator of connection IDs, and tracer a recorder, that are not called.
type ids struct{ quic.ConnectionIDGenerator }

type tracer struct{ io.Closer }

func (tracer) RecordEvent(qlogwriter.Event) {}

// TestDialFromTransport checks that a transport can dial an address that is over quota, with
// connection IDs as long as those of clients.
func TestDialFromTransport(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		c := mustNew(t, &Config{Excess: Drop, Source: Limits{Connections: 1}})
		slot := wantAdmit(t, c, serverAddr, true, PassNew)
		defer slot.Release()
		conn := l.net.Listen("198.51.100.1:1000")
		defer conn.Close()
		tr, err := c.Transport(&quic.Transport{Conn: conn, ConnectionIDLength: 12})
		if err != nil {
			t.Fatal(err)
		}
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

// TestTransportErrors checks that each wrong use has an error that says what to do.
func TestTransportErrors(t *testing.T) {
	connected, err := net.DialUDP("udp", nil, loopback(t).LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer connected.Close()
	c, other := mustNew(t, nil), mustNew(t, nil)
	for want, tr := range map[string]*quic.Transport{
		"there is no Conn: want &quic.Transport{Conn: conn}": {},
		"is not a UDP address":                               {Conn: notUDP{}},
		"its Conn is connected to 127.0.0.1:":                {Conn: connected},
		"it was given to a Controller already":               taken(t, other),
		"its Conn has a packet filter already":               {Conn: other.PacketConn(loopback(t), 4)},
		"another Transport reads this Conn":                  {Conn: readBy(t, c)},
	} {
		if _, err := c.Transport(tr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := c.Transport(nil); err == nil {
		t.Error("took nothing over")
	}
}

// notUDP is a conn that is not of UDP.
type notUDP struct{ net.PacketConn }

func (notUDP) LocalAddr() net.Addr { return &net.UnixAddr{Name: "a", Net: "unixgram"} }

// taken returns a transport that a controller has taken over.
func taken(t *testing.T, c *Controller) *quic.Transport {
	t.Helper()
	tr := &quic.Transport{Conn: loopback(t)}
	if _, err := c.Transport(tr); err != nil {
		t.Fatal(err)
	}
	return tr
}

// readBy returns the conn of a transport of a controller.
func readBy(t *testing.T, c *Controller) net.PacketConn {
	t.Helper()
	conn := loopback(t)
	if _, err := c.Transport(&quic.Transport{Conn: conn}); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestTakenTransport checks that nothing goes past the quota by the transport that the user has
// passed, and that its error says what to do.
func TestTakenTransport(t *testing.T) {
	c := mustNew(t, nil)
	tr := taken(t, c)
	ln, err := tr.Listen(serverTLS(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := ln.Accept(ctx); err == nil || !strings.Contains(err.Error(), "use the Transport that it has returned") {
		t.Errorf("got %v, want an error that says what to use", err)
	}
	if _, err := tr.Conn.WriteTo([]byte{1}, tr.Conn.LocalAddr()); !errors.Is(err, errTaken) {
		t.Errorf("got %v, want errTaken", err)
	}
}

// deadlines is a socket that counts its read deadlines.
type deadlines struct {
	*net.UDPConn
	n atomic.Int32
}

func (d *deadlines) SetReadDeadline(at time.Time) error {
	d.n.Add(1)
	return d.UDPConn.SetReadDeadline(at)
}

// TestCloseTakenTransport checks that closing the transport that the user has passed does not
// touch the socket.
func TestCloseTakenTransport(t *testing.T) {
	conn := &deadlines{UDPConn: loopback(t)}
	plain := &quic.Transport{Conn: conn}
	if _, err := mustNew(t, nil).Transport(plain); err != nil {
		t.Fatal(err)
	}
	if err := plain.Close(); err != nil {
		t.Error(err)
	}
	if n := conn.n.Load(); n != 0 {
		t.Errorf("set %d read deadlines, want none", n)
	}
}

// TestTransportInUse checks that a transport that is in use is not taken over.
func TestTransportInUse(t *testing.T) {
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
			conn := loopback(t)
			tr := &quic.Transport{Conn: conn}
			if err := use(tr); err != nil {
				t.Fatal(err)
			}
			defer tr.Close()
			if _, err := mustNew(t, nil).Transport(tr); err == nil || !strings.Contains(err.Error(), "it is in use") {
				t.Errorf("got %v, want an error", err)
			}
			if tr.Conn != conn || tr.ConnContext != nil || tr.VerifySourceAddress != nil {
				t.Error("the transport was changed")
			}
		})
	}
}

// TestConnIsFreeAgain checks that a conn may have another transport, and that its port is not
// guarded any more, when the first transport or the conn itself has been closed.
func TestConnIsFreeAgain(t *testing.T) {
	for name, end := range map[string]func(*Transport, *net.UDPConn){
		"transport": func(tr *Transport, _ *net.UDPConn) { tr.Close() },
		"conn":      func(_ *Transport, conn *net.UDPConn) { conn.Close() },
		"taken":     func(tr *Transport, _ *net.UDPConn) { tr.below.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			c := mustNew(t, nil)
			r := newRecorder(newFakeClock())
			c.enforcement.enforcer = r
			conn := loopback(t)
			tr, err := c.Transport(&quic.Transport{Conn: conn})
			if err != nil {
				t.Fatal(err)
			}
			ln, err := tr.Listen(serverTLS(t), nil)
			if err != nil {
				t.Fatal(err)
			}
			port := udp.AddrPort(conn.LocalAddr()).Port()
			if r.ports[port] != 1 {
				t.Errorf("guarded %d times, want once", r.ports[port])
			}
			end(tr, conn)
			if _, err := ln.Accept(t.Context()); err == nil {
				t.Error("accepted")
			}
			if r.ports[port] != 0 {
				t.Errorf("guarded %d times at the end, want none", r.ports[port])
			}
			again, err := c.Transport(&quic.Transport{Conn: conn})
			if err != nil {
				t.Fatal(err)
			}
			again.Close()
			tr.Close()
		})
	}
}
