package monitor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/decap"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/xdptest"
	"github.com/quicway/quicway/internal/wire"
	"github.com/quicway/quicway/xdp"
)

// loadFlows loads a program with the monitor stage.
func loadFlows(tb testing.TB, flows int) *xdp.Program {
	tb.Helper()
	program := xdptest.Load(tb, &xdp.Config{Stages: []xdp.Stage{xdp.RelayStage, xdp.MonitorStage}, Sessions: 1, Flows: flows})
	return program
}

// hook runs frames through one of the hooks of a program.
type hook struct {
	name string
	run  func(p *xdp.Program, frame []byte) (datapath.Verdict, []byte, error)
}

var programHooks = []hook{
	{"XDP", func(p *xdp.Program, b []byte) (datapath.Verdict, []byte, error) { return p.Datapath().Test(1, b) }},
	{"TCX", func(p *xdp.Program, b []byte) (datapath.Verdict, []byte, error) {
		return p.Datapath().TestEgress(1, b, 0)
	}},
}

// hooksHere returns the hooks that this kernel has. There is no TCX before Linux
// 6.6.
func hooksHere(tb testing.TB) []hook {
	if nettest.KernelAtLeast(tb, 6, 6) {
		return programHooks
	}
	return programHooks[:1]
}

// offloaded is a tracker whose source is a program.
type offloaded struct {
	testing.TB
	program *xdp.Program
	source  *kernel
	tracker *Tracker
	hook    hook
	opened  time.Time
}

// now returns the time by the monotonic clock.
func (o *offloaded) now() time.Time { return o.opened.Add(time.Since(o.opened)) }

// newOffloaded returns a tracker for a new program.
func newOffloaded(tb testing.TB, h hook, flows int, conf *Config) *offloaded {
	tb.Helper()
	return newOffloadedBy(tb, loadFlows(tb, flows), h, conf)
}

// newOffloadedBy returns a tracker for a program.
func newOffloadedBy(tb testing.TB, program *xdp.Program, h hook, conf *Config) *offloaded {
	tb.Helper()
	source, err := Kernel(program)
	if err != nil {
		tb.Fatal(err)
	}
	m, err := New(source, conf)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { source.Close() })
	m.tracker.events.wanted.Store(true)
	return &offloaded{tb, program, source.(*kernel), m.tracker, h, time.Now()}
}

// run runs a frame through the hook, which has to pass it unchanged.
func (o *offloaded) run(frame []byte) {
	o.Helper()
	verdict, out, err := o.hook.run(o.program, frame)
	if err != nil {
		o.Fatal(err)
	}
	if verdict != datapath.Pass || !bytes.Equal(out, frame) {
		o.Fatalf("verdict %v, %d bytes of %d: want pass without changes", verdict, len(out), len(frame))
	}
}

// read adds the reported packets to the tracker.
func (o *offloaded) read() {
	o.Helper()
	var p Packet
	for o.source.flows.Pending() {
		if err := o.source.Read(&p); err != nil {
			o.Fatal(err)
		}
		o.tracker.Packet(&p)
	}
}

// ethernet returns the Ethernet frame of a datagram.
func ethernet(s sent) []byte {
	kind := []byte{0x86, 0xdd}
	if s.from.Addr().Is4() {
		kind = []byte{0x08, 0x00}
	}
	return append(append(make([]byte, 12, 64+len(s.data)), kind...), frame(s).Data...)
}

// plain returns what does not depend on the times of packets, as text.
func plain(tb testing.TB, t *Tracker) string {
	tb.Helper()
	var all []string
	for c := range t.Connections() {
		c.Number, c.First, c.Last = 0, time.Time{}, time.Time{}
		c.Handshake = HandshakeRTT{min(c.Handshake.ServerSide, 1), min(c.Handshake.ClientSide, 1)}
		c.SpinRTT, c.RTT, c.Duration, c.Interface, c.Direction = 0, RTTStats{}, 0, 0, ""
		c.History = sortedLetters(c.History)
		if c.Ended != nil {
			c.Ended.Time = time.Time{}
		}
		for i := range c.Paths {
			p := &c.Paths[i]
			// Of several paths in use, the latest is active. That depends on the time.
			p.Active = p.Active && !slices.ContainsFunc(c.PathChanges, func(c PathChange) bool { return c.Kind == Multipath })
			p.First, p.Last, p.SpinRTT, p.SpinServerSide, p.SpinClientSide = time.Time{}, time.Time{}, 0, 0, 0
			p.RTT = RTTStats{}
		}
		for i := range c.PathChanges {
			change := &c.PathChanges[i]
			change.Time = time.Time{}
			change.Evidence, _, _ = strings.Cut(change.Evidence, "; ")
		}
		text, err := json.Marshal(c)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, string(text))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// sortedLetters returns a history without its order: the kernel counts several packets before the
// tracker sees them.
func sortedLetters(history string) string {
	letters := []byte(history)
	slices.Sort(letters)
	return string(letters)
}

// spins returns what was seen of the spin bit without times.
func spins(t *Tracker) (packets, edges uint32) {
	for e := range t.index.connections.all() {
		for _, p := range e.value.paths {
			for _, w := range p.sent {
				packets += w.spin.packets
				edges += w.spin.edges
			}
		}
	}
	return packets, edges
}

// parityScenes returns the datagrams for which the hooks and a file have to agree.
func parityScenes(t *testing.T) map[string][]sent {
	simple := func(n int) func(*scene) {
		return func(s *scene) {
			conn := s.dial(nil)
			s.exchange(conn, n)
			conn.CloseWithError(0, "")
			time.Sleep(time.Second)
		}
	}
	scenes := map[string][]sent{
		"v1":    play(t, &quic.Config{Versions: v1}, false, simple(200000)),
		"Retry": play(t, nil, true, simple(20000)),
		"negotiation": play(t, &quic.Config{Versions: v1}, false, func(s *scene) {
			s.exchange(s.dial(&quic.Config{Versions: []quic.Version{quic.Version2, quic.Version1}}), 20000)
		}),
		"rotation": play(t, nil, false, func(s *scene) {
			conn := s.dial(nil)
			for range 2 {
				s.exchange(conn, 10<<20)
			}
		}),
		"0-RTT": play(t, nil, false, func(s *scene) {
			for range 2 {
				simple(2000)(s)
			}
		}),
		"rebinding": play(t, nil, false, func(s *scene) {
			conn := s.dial(nil)
			s.exchange(conn, 50000)
			synctest.Wait()
			s.network.Rebind(s.client, "192.0.2.1:50001")
			s.exchange(conn, 50000)
		}),
		"migration": play(t, nil, false, func(s *scene) { s.migrate("192.0.2.1:50002") }),
		"two connections": play(t, nil, false, func(s *scene) {
			busy, quiet := s.dial(nil), s.dial(nil)
			s.exchange(busy, 100000)
			s.exchange(quiet, 10)
		}),
		"noise": noise(5000),
	}
	scenes["refused"] = begunBy(t, closeFrame(2, "no room"))
	scenes["Google"] = slices.Concat(googleConn(t, "Q043", 0), googleConn(t, "Q043", 0))
	for _, version := range []string{"Q039", "Q043", "Q046", "Q050"} {
		scenes["Google in parts, "+version] = googleConn(t, version, 0, 30, 400)
	}
	// Another protocol uses the client's socket before, or after.
	other := func(n int) (out []sent) {
		for i := range n {
			out = append(out, at(i, clientAddr, serverAddr, append([]byte{0x04, byte(i)}, make([]byte, 60)...)))
		}
		return out
	}
	scenes["other before"] = after(other(10), scenes["v1"])
	scenes["other after"] = after(play(t, nil, false, func(s *scene) { s.short() }), other(10))
	scenes["there and back"] = twoPaths(t, 2, 10)
	scenes["multipath"] = twoPaths(t, 10, 6)
	probe := traffic{client: newPort, toServer: "new-id-1", toClient: "new1", from: 300, to: 300, pause: 20, probe: true}
	scenes["a probe of one of two"] = packets(pair(t), probe)
	scenes["an ID of one of two"] = packets(pair(t), probe, traffic{client: newPort, toServer: "srv-id-A", toClient: "new1", from: 320, to: 400, pause: 20})
	scenes["mid-flow"] = slices.DeleteFunc(slices.Clone(scenes["v1"]), func(s sent) bool { return wire.IsLong(s.data[0]) })
	scenes["mixed"] = after(scenes["v1"], noise(500))
	scenes["spin"] = withSpin(scenes["v1"])
	scenes["spin, rotation"] = withSpin(scenes["rotation"])
	scenes["spin, other IDs"] = changedIDs(t)
	scenes["IPv6"] = toIPv6(scenes["v1"])
	scenes["ECN"] = withECN(scenes["v1"])
	scenes["ECN, IPv6"] = toIPv6(scenes["ECN"])
	return scenes
}

// changedIDs returns the packets of a connection whose ends change their IDs again and again on one
// path. The values of the spin bit are random, and packets with the old ID come late.
func changedIDs(tb testing.TB) []sent {
	all := establishedConn(tb)
	spins := len(all)
	for i := range 6 {
		toServer, toClient := []byte(fmt.Sprintf("srv-id-%d", 1+i)), []byte(fmt.Sprintf("cli%d", 1+i))
		one := []shortHeaders{{clientAddr, serverAddr, toServer, 300}, {serverAddr, clientAddr, toClient, 1200}}
		next := []shortHeaders{{clientAddr, serverAddr, []byte(fmt.Sprintf("srv-id-%d", 2+i)), 300}, {serverAddr, clientAddr, []byte(fmt.Sprintf("cli%d", 2+i)), 1200}}
		all = addShorts(all, 15, one...)
		all = addShorts(addShorts(addShorts(all, 1, next...), 1, one...), 1, next[i%2])
	}
	rng := rand.New(rand.NewPCG(7, 8))
	for _, s := range all[spins:] {
		s.data[0] |= byte(rng.IntN(2)) * spinBit
	}
	return all
}

// TestParity checks that the same packets give the same connections from a file and
// from both hooks, and that all packets pass unchanged.
func TestParity(t *testing.T) {
	for name, all := range parityScenes(t) {
		for _, h := range hooksHere(t) {
			t.Run(name+"/"+h.name, func(t *testing.T) {
				o := newOffloaded(t, h, 1000, nil)
				all := slices.Clone(all)
				for i := range all {
					all[i].at = o.now()
					o.run(ethernet(all[i]))
					o.read()
				}
				o.same(all)
				// Few packets are reported.
				stats := o.stats()
				if n := stats["monitor_reported"]; len(all) > 1000 && n > uint64(len(all))/10 && name != "noise" && name != "mixed" {
					t.Errorf("%d of %d packets were reported", n, len(all))
				}
			})
		}
	}
}

// same compares the connections with those of a file with the same packets.
func (o *offloaded) same(all []sent) {
	o.Helper()
	source, err := NewReader(bytes.NewReader(pcapOf(o, decap.LinkRaw, all...)))
	if err != nil {
		o.Fatal(err)
	}
	file := newTracker(o, nil)
	file.index.slack = o.tracker.index.slack // for connections that share endpoints
	var p Packet
	for source.Read(&p) == nil {
		file.Packet(&p)
	}
	if got, want := plain(o, o.tracker), plain(o, file); got != want {
		o.Errorf("got %s\nwant %s", got, want)
	}
	timely(o, balanced(o, file))
	timely(o, balanced(o, o.tracker))
	packets, edges := spins(o.tracker)
	wantPackets, wantEdges := spins(file)
	// Packets beyond the limit of reports are only counted.
	if stats := o.stats(); stats["monitor_limited"] == 0 && (packets != wantPackets || edges != wantEdges) {
		o.Errorf("the spin bit had %d edges in %d packets, want %d in %d; %v", edges, packets, wantEdges, wantPackets, stats)
	}
}

// stats returns the program's counters.
func (o *offloaded) stats() map[xdp.Reason]uint64 {
	o.Helper()
	stats, err := o.program.Stats()
	if err != nil {
		o.Fatal(err)
	}
	return stats
}
