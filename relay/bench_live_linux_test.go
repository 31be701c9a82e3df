package relay

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/test/livetest"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/udp"
)

const (
	liveFlows = 64
	liveTurn  = 300 * time.Millisecond
)

// liveKey is the key of the leg at the sink of a flow. The sender knows it without being told.
func liveKey(flow int) cid.Key { return cid.Key{1, byte(flow)} }

// live is a host with a relay and a plain loop between a sender, which is another process that
// stays on one CPU, and sinks that nobody reads.
type live struct {
	*testing.B
	sender, relay, sink *nettest.Host
	from, to            []*net.UDPConn
	server              *Server
	plainSent           atomic.Uint64
	say                 io.Writer
	hear                *bufio.Reader
}

func newLive(b *testing.B) *live {
	b.Helper()
	l := &live{B: b, sender: nettest.NewHost(b), relay: nettest.NewHost(b), sink: nettest.NewHost(b)}
	for i, h := range []*nettest.Host{l.sender, l.sink} {
		ours, theirs := fmt.Sprintf("10.%d.0.1", i+2), fmt.Sprintf("10.%d.0.2/24", i+2)
		nettest.Cable(l.relay, fmt.Sprintf("eth%d", i), []string{ours + "/24"}, h, "eth0", []string{theirs})
		h.Route("10.1.0.0/24", ours)
	}
	l.relay.Address("lo", "10.1.0.2/32")
	for range liveFlows {
		l.from = append(l.from, l.socket(l.sender, "10.2.0.2:0"))
		l.to = append(l.to, l.socket(l.sink, "10.3.0.2:0"))
	}
	l.serve()
	l.plain()
	l.send()
	return l
}

func (l *live) socket(h *nettest.Host, addr string) *net.UDPConn {
	conn := h.Listen(addr)
	l.Cleanup(func() { conn.Close() })
	if err := conn.SetReadBuffer(4096); err != nil { // soon full: a sink drops what comes
		l.Fatal(err)
	}
	return conn
}

// serve runs a relay that knows all flows.
func (l *live) serve() {
	s, err := New(nil, l.relay.Listen("10.1.0.2:4433"))
	if err != nil {
		l.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Run(context.Background()) }()
	l.Cleanup(func() {
		s.Close()
		<-served
	})
	for i := range l.from {
		keys := [2]cid.Key{control.Dialer: cid.NewKey(), control.Accepter: liveKey(i)}
		ends := [2]netip.AddrPort{control.Dialer: udp.AddrPort(l.from[i].LocalAddr()), control.Accepter: udp.AddrPort(l.to[i].LocalAddr())}
		openSession(l.B, s, keys, ends, netip.MustParseAddr("10.1.0.2"))
	}
	l.server = s
}

// plain runs a simple loop: ReadFrom, look-up, WriteTo.
func (l *live) plain() {
	conn := l.relay.Listen("10.1.0.2:4434")
	forceReadBuffer(l.B, conn)
	routes := make(map[cid.ID]netip.AddrPort)
	for i, to := range l.to {
		for counter := range uint64(cid.Ahead) {
			routes[liveKey(i).ID(cid.Peer, counter)] = udp.AddrPort(to.LocalAddr())
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p := livetest.Plain{Conn: conn, Routes: routes, Sent: func() { l.plainSent.Add(1) }}
		_ = p.Run() // until it is closed
	}()
	l.Cleanup(func() {
		conn.Close()
		<-ended
	})
}

// liveResult is what a turn has shown.
type liveResult struct{ pps, cpu float64 }

// turn lets the sender send to one of the loops. It returns how many packets the loop has
// sent in a second, and the CPU time of this process for each, in nanoseconds. What is then left in
// the queue is forwarded before the next turn.
func (l *live) turn(port uint16, flows int, forwarded func() uint64) liveResult {
	before, cpu, begin := forwarded(), livetest.ProcessTime(l, os.Getpid()), time.Now()
	l.order(port, flows, 0)
	n, took := float64(forwarded()-before), time.Since(begin)
	cpu = livetest.ProcessTime(l, os.Getpid()) - cpu
	for last := uint64(0); forwarded() != last; time.Sleep(50 * time.Millisecond) {
		last = forwarded()
	}
	return liveResult{n / took.Seconds(), float64(cpu.Nanoseconds()) / n}
}

// relayed returns how many packets the relay has forwarded.
func (l *live) relayed() uint64 { return l.server.Stats().ForwardedPackets }

// BenchmarkLive measures how many packets that arrive from another process a relay forwards,
// beside a simple loop that takes turns with it: packets of 64 flows in turns, which find the
// loop waiting when it is fast, and trains of one flow. One op is a turn of each. It reports
// medians, also of what a figure is of the simple loop's in the same round.
func BenchmarkLive(b *testing.B) {
	for _, flows := range []int{1, liveFlows} {
		b.Run(fmt.Sprintf("flows=%d", flows), func(b *testing.B) {
			l := newLive(b)
			var pps, cpu, plainPPS, plainCPU, ofPPS, ofCPU []float64
			for round := range b.N {
				var ours, plain liveResult
				if round%2 == 0 {
					ours = l.turn(4433, flows, l.relayed)
					plain = l.turn(4434, flows, l.plainSent.Load)
				} else {
					plain = l.turn(4434, flows, l.plainSent.Load)
					ours = l.turn(4433, flows, l.relayed)
				}
				pps, cpu = append(pps, ours.pps), append(cpu, ours.cpu)
				plainPPS, plainCPU = append(plainPPS, plain.pps), append(plainCPU, plain.cpu)
				ofPPS, ofCPU = append(ofPPS, ours.pps/plain.pps), append(ofCPU, ours.cpu/plain.cpu)
			}
			for unit, all := range map[string][]float64{
				"pps": pps, "pps-plain": plainPPS, "of-plain-pps": ofPPS,
				"cpu-ns": cpu, "cpu-ns-plain": plainCPU, "of-plain-cpu": ofCPU,
			} {
				slices.Sort(all)
				b.ReportMetric(all[len(all)/2], unit)
			}
			b.Logf("packets a second, of those of the plain loop: %.2f to %.2f", ofPPS[0], ofPPS[len(ofPPS)-1])
		})
	}
}
