package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/test/livetest"
	"github.com/quicway/quicway/internal/test/packet"
	"github.com/quicway/quicway/internal/test/xdptest"
	"github.com/quicway/quicway/xdp"
)

// BenchmarkAlone measures the CPU time that a relay takes for a packet, without a sender and a sink:
// the kernel makes and counts the packets. All is on one CPU. A relay knows 1 048 576 IDs of 131 072
// sessions, and packets have so many of them in turns, in random order: nearly each is of another
// session, and far from the one before in memory. The net figures are without the generator and the link
// from it, which are measured each time as well. One op is one packet that has arrived.
func BenchmarkAlone(b *testing.B) {
	livetest.OneCPU(b)
	a := newAlone(b)
	none := func(*testing.B) func() { return func() {} }
	ways := []struct {
		name    string
		through *livetest.Generator
		begin   func(*testing.B) (end func())
	}{
		{"native", a.toRelay, func(b *testing.B) func() { return a.kernel(b, xdp.Native) }},
		{"generic", a.toRelay, func(b *testing.B) func() { return a.kernel(b, xdp.Generic) }},
		{"loop", a.toRelay, none},
		{"plain", a.toPlain, none},
		{"routed", a.toSink, none},
	}
	sizes := []int{1, 64, 1 << 12, 1 << 17, aloneIDs}
	if testing.Short() { // the others take minutes
		sizes = sizes[:2]
	}
	for _, ids := range sizes {
		for _, way := range ways {
			warm := false
			b.Run(fmt.Sprintf("ids=%d/%s", ids, way.name), func(b *testing.B) {
				floor := a.floor(b, way.through, ids)
				defer way.through.Attach(b)()
				defer a.counter.Frames(b, a.rig.sink, "eth0")()
				defer way.begin(b)()
				way.through.Use(b, ids)
				if !warm {
					a.flood(b, way.through, max(ids, 1<<13))
					warm = true
				}
				b.ResetTimer()
				all := a.flood(b, way.through, b.N)
				b.StopTimer()
				reportAlone(b, all, floor)
			})
		}
	}
}

const (
	aloneIDs        = 1 << 20
	alonePerSession = 8 // of the accepter: the window of a leg has room for them
	aloneSessions   = aloneIDs / alonePerSession
	alonePlain      = "10.1.0.3:4433"
)

// alone is a network with a relay by package relay, which forwards in Go until the program is
// attached, and one by a plain loop. Both know the same sessions.
type alone struct {
	*rig
	counter *livetest.Sink
	program *xdp.Program
	keys    []cid.Key // of the accepters, by session
	ids     []cid.ID  // of all sessions, one after the other

	toRelay, toPlain, toSink *livetest.Generator
}

func newAlone(b *testing.B) *alone {
	a := &alone{rig: newRig(b), counter: livetest.NewSink(b)}
	for range aloneSessions {
		key := cid.NewKey()
		a.keys = append(a.keys, key)
		ids := key.Deriver(cid.Peer)
		for counter := range uint64(alonePerSession) {
			a.ids = append(a.ids, ids.ID(counter))
		}
	}
	host := a.rig.relay
	host.ReceiveOffloads("eth0")
	host.Address("lo", "10.1.0.3/32")
	host.Route("10.64.0.0/10", "10.2.0.2")
	host.Route("10.128.0.0/10", "10.3.0.2")
	a.program = a.fillKernel()
	a.fillLoop()
	a.fillPlain()

	order := rand.Perm(aloneIDs)
	target, plain := netip.MustParseAddrPort(rigRelay), netip.MustParseAddrPort(alonePlain)
	a.toRelay = a.generator(order, func(int) netip.AddrPort { return target })
	a.toPlain = a.generator(order, func(int) netip.AddrPort { return plain })
	a.toSink = a.generator(order, func(session int) netip.AddrPort { return aloneEnds(session)[control.Accepter] })
	return a
}

// aloneEnds returns the addresses of both peers of a session.
func aloneEnds(session int) [2]netip.AddrPort {
	at := func(base uint32, port uint16) netip.AddrPort {
		var addr [4]byte
		binary.BigEndian.PutUint32(addr[:], base+uint32(session))
		return netip.AddrPortFrom(netip.AddrFrom4(addr), port)
	}
	return [2]netip.AddrPort{control.Dialer: at(10<<24|64<<16, 2000), control.Accepter: at(10<<24|128<<16, 3000)}
}

// fillKernel makes the program know the IDs that are in use, without a server.
func (a *alone) fillKernel() *xdp.Program {
	a.Helper()
	program := xdptest.Load(a, &xdp.Config{Sessions: aloneSessions, IDs: aloneIDs})
	stage := xdptest.Relay(a, program)
	local := netip.MustParseAddrPort(rigRelay)
	err := stage.OpenPort(local.Port())
	for i := range a.keys {
		var legs [2]datapath.Leg
		for role, remote := range aloneEnds(i) {
			legs[role] = datapath.Leg{Remote: remote, Local: local}
		}
		err = errors.Join(err, stage.PutSession(uint32(i), legs), stage.SetDue(uint32(i), uint8(control.Accepter), 1<<30))
	}
	for i, id := range a.ids {
		route := datapath.Route{Session: uint32(i / alonePerSession), Leg: uint8(control.Accepter), Counter: uint64(i % alonePerSession)}
		err = errors.Join(err, stage.PutRoute(id, route))
	}
	if err != nil {
		a.Fatal(err)
	}
	return program
}

// fillLoop runs the forwarding loop of a server that knows the sessions. The loop alone runs, without what
// a server does every second.
func (a *alone) fillLoop() {
	a.Helper()
	s, err := New(&Config{MaxSessions: aloneSessions, TTL: time.Hour}, a.rig.relay.Listen(rigRelay))
	if err != nil {
		a.Fatal(err)
	}
	forceReadBuffer(a.B, s.sockets.all[0].Conn().(syscall.Conn))
	local := netip.MustParseAddrPort(rigRelay).Addr()
	for i, key := range a.keys {
		openSession(a.B, s, [2]cid.Key{control.Dialer: cid.NewKey(), control.Accepter: key}, aloneEnds(i), local)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for s.shards[0].step() == nil {
		}
	})
	a.Cleanup(func() {
		s.Close()
		running.Wait()
	})
}

// fillPlain runs the plain loop, with the same IDs.
func (a *alone) fillPlain() {
	a.Helper()
	routes := make(map[cid.ID]netip.AddrPort, aloneIDs)
	for i, id := range a.ids {
		routes[id] = aloneEnds(i / alonePerSession)[control.Accepter]
	}
	forceReadBuffer(a.B, a.plain(alonePlain, routes))
}

// generator returns a generator of packets with the IDs in this order, to the address that depends on
// the session.
func (a *alone) generator(order []int, to func(session int) netip.AddrPort) *livetest.Generator {
	a.Helper()
	var gateway net.HardwareAddr
	a.rig.relay.Do(func() error {
		iface, err := net.InterfaceByName("eth0")
		gateway = iface.HardwareAddr
		return err
	})
	f := packet.Frame{TTL: 64, Payload: make([]byte, benchPacket)}
	f.Payload[0] = 0x40
	var frame []byte
	heads := make([][livetest.Head]byte, len(order))
	for i, n := range order {
		session := n / alonePerSession
		f.Src, f.Dst = aloneEnds(session)[control.Dialer], to(session)
		copy(f.Payload[1:], a.ids[n].Bytes())
		frame = f.Build(gateway, gateway)
		copy(heads[i][:], frame)
	}
	return livetest.NewGenerator(a, a.sender, "eth0", frame, heads)
}

// kernel attaches the program. At the end it checks that the program has relayed.
func (a *alone) kernel(b *testing.B, mode xdp.Mode) (end func()) {
	b.Helper()
	relayed := func() uint64 {
		stats, err := a.program.Stats()
		if err != nil {
			b.Fatal(err)
		}
		return stats[xdp.Reason(datapath.Relayed.String())]
	}
	a.attach(a.program, mode)
	before := relayed()
	return func() {
		a.detach(a.program)
		if n := relayed() - before; n < uint64(b.N) {
			b.Errorf("the program has relayed %d of %d packets", n, b.N)
		}
	}
}

// floor measures the time for a packet of the generator and the link from it.
func (a *alone) floor(b *testing.B, g *livetest.Generator, ids int) time.Duration {
	b.Helper()
	defer g.Attach(b)()
	defer a.counter.Frames(b, a.rig.relay, "eth0")()
	g.Use(b, ids)
	a.flood(b, g, 1<<14)
	return a.flood(b, g, 1<<18)
}

// flood measures the time for each of n packets.
func (a *alone) flood(b *testing.B, g *livetest.Generator, n int) time.Duration {
	b.Helper()
	before := livetest.CPUTime(b)
	arrived, err := g.Flood(a.counter, uint64(n))
	if err != nil {
		b.Fatal(err)
	}
	return (livetest.CPUTime(b) - before) / time.Duration(arrived)
}

func reportAlone(b *testing.B, all, floor time.Duration) {
	net := float64(max(all-floor, 1))
	b.ReportMetric(float64(all), "ns/op")
	b.ReportMetric(1e9/float64(all), "pps")
	b.ReportMetric(net, "net-ns/op")
	b.ReportMetric(1e9/net, "net-pps")
}
