package sni

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/udp"
)

const (
	quicBenchPacket = 1200
	quicBenchFill   = 4096 // packets in the socket buffer when the measurement starts
	quicBenchTrain  = 32   // datagrams that a bulk sender hands to the kernel at once
	quicBenchBuffer = 7 << 20
)

// quicBenchFlow is a client, and an upstream where nobody reads.
type quicBenchFlow struct {
	client, upstream *udp.Socket
	id               []byte
}

// quicBenchSocket opens a socket with a small buffer: it is soon full, and the kernel drops further
// packets as if they had been sent.
func quicBenchSocket(t testing.TB) *udp.Socket {
	t.Helper()
	sockets, err := udp.Listen(context.Background(), "udp", "127.0.0.1:0", 1, &udp.Config{ReadBuffer: 4096})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sockets[0].Close() })
	return sockets[0]
}

func quicBenchFlows(t testing.TB, n int) (out []quicBenchFlow) {
	t.Helper()
	for range n {
		out = append(out, quicBenchFlow{quicBenchSocket(t), quicBenchSocket(t), testID(8)})
	}
	return out
}

// confirmedFlow adds a flow as if its client had confirmed it.
func confirmedFlow(t testing.TB, s *Server, client, upstream netip.AddrPort, id []byte) *flow {
	t.Helper()
	sh, route := s.quic.shards[0], s.Routes()[0]
	c := &quicConn{route: route, answered: true}
	c.idLen.Store(int32(len(id)))
	f := &flow{shard: sh, endpoints: endpoints{client, netip.MustParseAddr("127.0.0.1")}, conn: c, first: none, final: none}
	f.answered.Store(true)
	if why, ok := s.quic.add(f, idOf(testID(8))); !ok {
		t.Fatal(why)
	}
	if _, err := sh.connect(f, upstreamAddr{route.pool.upstreams[0], upstream}); err != nil {
		t.Fatal(err)
	}
	if why, ok := s.quic.confirm(f, true); !ok {
		t.Fatal(why)
	}
	sh.learn(f, idOf(id))
	sh.join(f)
	return f
}

func quicBenchServer(t testing.TB) *Server {
	t.Helper()
	s, err := Listen(context.Background(), "udp", "127.0.0.1:0", &Config{Shards: 1, Routes: routesTo("a.test", "192.0.2.1:443")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestQUICAllocs checks that a datagram of a known flow costs no allocation in either direction.
func TestQUICAllocs(t *testing.T) {
	if nettest.RaceDetector {
		t.Skip("with the race detector, sync.Pool forgets a quarter of what it is given")
	}
	s := quicBenchServer(t)
	b := quicBenchFlows(t, 1)[0]
	f := confirmedFlow(t, s, b.client.LocalAddr(), b.upstream.LocalAddr(), b.id)
	sh := s.quic.shards[0]
	up := udp.Message{Data: shortPacket(b.id, 1200), Remote: b.client.LocalAddr(), Local: f.relay, HopLimit: 64}
	down := []udp.Received{{Member: f.member.Load(), Owner: f, Message: udp.Message{Data: shortPacket(nil, 1200), HopLimit: 64}}}
	if n := testing.AllocsPerRun(1000, func() {
		sh.sort(&up)
		sh.flush()
	}); n != 0 {
		t.Errorf("%v allocations for a datagram from the client", n)
	}
	if n := testing.AllocsPerRun(1000, func() { sh.answers(down) }); n != 0 {
		t.Errorf("%v allocations for a datagram from the upstream", n)
	}
	if got := f.fromClient.Load(); got < 1000*1200 {
		t.Errorf("%d bytes were relayed", got)
	}
}

// BenchmarkQUICForward compares the relay's loop with a simple one: ReadFrom, look-up of the
// client's address, Write to its upstream socket. One op is one packet.
func BenchmarkQUICForward(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("flows=%d/relay", n), func(b *testing.B) { benchQUICRelay(b, quicBenchFlows(b, n)) })
		b.Run(fmt.Sprintf("flows=%d/plain", n), func(b *testing.B) { benchQUICPlain(b, quicBenchFlows(b, n)) })
	}
}

func benchQUICRelay(b *testing.B, flows []quicBenchFlow) {
	s := quicBenchServer(b)
	for _, f := range flows {
		confirmedFlow(b, s, f.client.LocalAddr(), f.upstream.LocalAddr(), f.id)
	}
	sh := s.quic.shards[0]
	benchQUIC(b, flows, sh.socket.Conn().(*net.UDPConn), func(n int) {
		for want := sh.fromClients.datagrams.Load() + uint64(n); sh.fromClients.datagrams.Load() < want; {
			if err := sh.step(); err != nil {
				b.Fatalf("packets were lost: %v", err)
			}
		}
	})
}

func benchQUICPlain(b *testing.B, flows []quicBenchFlow) {
	conn := udpConn(b, "127.0.0.1:0")
	routes := make(map[netip.AddrPort]*net.UDPConn)
	for _, f := range flows {
		to, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(f.upstream.LocalAddr()))
		if err != nil {
			b.Fatal(err)
		}
		defer to.Close()
		routes[f.client.LocalAddr()] = to
	}
	buf := make([]byte, 2048)
	benchQUIC(b, flows, conn, func(n int) {
		for range n {
			size, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := routes[from].Write(buf[:size]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// benchQUIC measures how fast drain relays packets that are already in the socket buffer: of all
// flows in turn, or trains of the only one.
func benchQUIC(b *testing.B, flows []quicBenchFlow, conn *net.UDPConn, drain func(n int)) {
	forceBuffer(b, conn)
	at := addrOf(conn)
	b.ReportAllocs()
	b.SetBytes(quicBenchPacket)
	b.StopTimer()
	n := 0
	for ; n < b.N; n += quicBenchFill {
		for i := 0; i < quicBenchFill; {
			f := &flows[i%len(flows)]
			m := udp.Message{Data: shortPacket(f.id, quicBenchPacket), Remote: at}
			if len(flows) == 1 {
				m.Data, m.SegmentSize = bytes.Repeat(m.Data, quicBenchTrain), quicBenchPacket
			}
			if err := f.client.Write(&m); err != nil {
				b.Fatal(err)
			}
			i += m.Count()
		}
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		drain(quicBenchFill)
		b.StopTimer()
	}
	perOp := float64(b.Elapsed().Nanoseconds()) / float64(n) // the last fill may have been more than b.N
	b.ReportMetric(perOp, "ns/op")
	b.ReportMetric(1e9/perOp, "pps")
}

// forceBuffer makes the read buffer large enough for the packets that are sent before the
// measurement.
func forceBuffer(b *testing.B, conn *net.UDPConn) {
	b.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	if err := conn.SetReadBuffer(quicBenchBuffer); err != nil {
		b.Fatal(err)
	}
	var got int
	if err := raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, quicBenchBuffer)
		got, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
	}); err != nil {
		b.Fatal(err)
	}
	if err != nil || got < 2*quicBenchBuffer { // the kernel counts its own overhead as well
		b.Skipf("a buffer of %d bytes is too small: run as root, or set net.core.rmem_max=%d (%v)", got, quicBenchBuffer, err)
	}
}
