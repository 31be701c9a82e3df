package relay

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/test/livetest"
	"github.com/quicway/quicway/internal/udp"
)

const (
	benchPacket = 1200
	benchFill   = 4096 // packets in the socket buffer when the measurement starts
	benchTrain  = 32   // datagrams that a bulk sender hands to the kernel at once
	benchBuffer = 7 << 20
)

// flow is a session with a sender at one end and nobody who reads at the other.
type flow struct {
	sender *udp.Socket
	sink   *udp.Socket
	key    cid.Key // of the sink's leg
	data   []byte  // a train of packets for it
}

func benchSocket(b *testing.B) *udp.Socket {
	b.Helper()
	// Small buffers: they are soon full, and the kernel drops further packets, as
	// if they had been sent.
	sockets, err := udp.Listen(context.Background(), "udp", "127.0.0.1:0", 1, &udp.Config{ReadBuffer: 4096})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { sockets[0].Close() })
	return sockets[0]
}

func benchFlows(b *testing.B, n int) []*flow {
	b.Helper()
	var flows []*flow
	for range n {
		f := &flow{sender: benchSocket(b), sink: benchSocket(b), key: cid.NewKey()}
		packet := append([]byte{0x40}, f.key.ID(cid.Peer, 0).Bytes()...)
		packet = append(packet, make([]byte, benchPacket-len(packet))...)
		f.data = bytes.Repeat(packet, benchTrain)
		flows = append(flows, f)
	}
	return flows
}

// fill sends what is then forwarded: packets of all flows in turn, or trains of
// the only one.
func fill(b *testing.B, flows []*flow, to netip.AddrPort) {
	b.Helper()
	for i := 0; i < benchFill; {
		f := flows[i%len(flows)]
		m := udp.Message{Data: f.data[:benchPacket], Remote: to}
		if len(flows) == 1 {
			m.Data, m.SegmentSize = f.data, benchPacket
		}
		if err := f.sender.Write(&m); err != nil {
			b.Fatal(err)
		}
		i += m.Count()
	}
}

// benchForward measures how fast drain forwards packets that are already in the socket
// buffer. One op is one packet.
func benchForward(b *testing.B, flows []*flow, at netip.AddrPort, drain func(n int)) {
	b.Helper()
	b.ReportAllocs()
	b.SetBytes(benchPacket)
	b.StopTimer()
	n := 0
	for ; n < b.N; n += benchFill {
		fill(b, flows, at)
		b.StartTimer()
		drain(benchFill)
		b.StopTimer()
	}
	// The last fill may have been more than b.N.
	perOp := float64(b.Elapsed().Nanoseconds()) / float64(n)
	b.ReportMetric(perOp, "ns/op")
	b.ReportMetric(1e9/perOp, "pps")
}

// BenchmarkForward compares the relay's loop with a simple loop: ReadFrom, look-up,
// WriteTo.
func BenchmarkForward(b *testing.B) {
	for _, n := range []int{1, 64} {
		name := fmt.Sprintf("flows=%d", n)
		b.Run(name+"/relay", func(b *testing.B) { benchRelay(b, benchFlows(b, n)) })
		b.Run(name+"/plain", func(b *testing.B) { benchPlain(b, benchFlows(b, n)) })
	}
}

func benchRelay(b *testing.B, flows []*flow) {
	server, err := Listen(context.Background(), "udp", "127.0.0.1:0", &Config{Shards: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	forceReadBuffer(b, server.sockets.all[0].Conn().(syscall.Conn))
	for _, f := range flows {
		connectFlow(b, server, f)
	}
	sh := server.shards[0]
	benchForward(b, flows, server.sockets.all[0].LocalAddr(), func(n int) {
		for want := sh.counters.packets.Load() + uint64(n); sh.counters.packets.Load() < want; {
			if err := sh.step(); err != nil {
				b.Fatalf("packets were lost: %v", err)
			}
		}
	})
	if s := server.Stats(); s.Drops() != 0 || s.ReceiveOverflow != 0 {
		b.Errorf("dropped %v, overflow %d", s.Dropped, s.ReceiveOverflow)
	}
}

// connectFlow opens a session with a leg at each end of the flow.
func connectFlow(b *testing.B, s *Server, f *flow) {
	b.Helper()
	keys := [2]cid.Key{control.Dialer: cid.NewKey(), control.Accepter: f.key}
	openSession(b, s, keys, [2]netip.AddrPort{f.sender.LocalAddr(), f.sink.LocalAddr()}, netip.MustParseAddr("127.0.0.1"))
}

func benchPlain(b *testing.B, flows []*flow) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	forceReadBuffer(b, conn)
	routes := make(map[cid.ID]netip.AddrPort)
	for _, f := range flows {
		for counter := range uint64(cid.Ahead) {
			routes[f.key.ID(cid.Peer, counter)] = f.sink.LocalAddr()
		}
	}
	sent := 0
	plain := &livetest.Plain{Conn: conn, Routes: routes, Sent: func() { sent++ }}
	benchForward(b, flows, udp.AddrPort(conn.LocalAddr()), func(n int) {
		for until := sent + n; sent < until; {
			before := sent
			if err := plain.Step(); err != nil || sent == before {
				b.Fatalf("a packet is not forwarded: %v", err)
			}
		}
	})
}

// forceReadBuffer makes the read buffer of a socket large enough for the packets that are
// sent before the measurement.
func forceReadBuffer(b *testing.B, conn syscall.Conn) {
	b.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	var got int
	if err := raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, benchBuffer)
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, benchBuffer)
		got, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
	}); err != nil {
		b.Fatal(err)
	}
	if err != nil || got < 2*benchBuffer { // the kernel counts its own overhead as well
		b.Skipf("a buffer of %d bytes is too small: run as root, or set net.core.rmem_max=%d (%v)", got, benchBuffer, err)
	}
}
