package datapath

import (
	"crypto/rand"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/packet"
)

// loadPass loads a program that passes all packets: the floor.
func loadPass(b *testing.B) *ebpf.Program {
	b.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.XDP,
		AttachType:   ebpf.AttachXDP,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, int32(Pass)), asm.Return()},
		License:      "MIT",
	})
	if err != nil {
		nettest.Missing(b, "loading a program failed: "+err.Error())
	}
	b.Cleanup(func() { prog.Close() })
	return prog
}

// kind is a packet that the monitor stage is measured with.
type kind struct {
	name    string
	payload []byte
	rules   FlowRules // of its flow
}

func kinds() []kind {
	short := append([]byte{0x40, 1, 2, 3, 4, 5, 6, 7, 8}, make([]byte, 1191)...)
	rtp := append([]byte{0x80, 0x60, 0x12, 0x34}, make([]byte, 160)...)
	rule := Rule{Match: MatchID, IDLen: 8}
	copy(rule.ID[:], short[1:9])
	return []kind{
		{"short", short, FlowRules{Directions: [2]Rule{rule, rule}}},
		{"other", rtp, FlowRules{Ignored: true}},
	}
}

// BenchmarkMonitor measures the time for a packet with the monitor stage, without it, and with an
// empty program. For new flows it compares only the monitor stage with the empty program.
func BenchmarkMonitor(b *testing.B) {
	empty := loadPass(b)
	for family, name := range families {
		for _, k := range kinds() {
			f := packet.Frame{Src: alice.at(family, 1000), Dst: bob.at(family, 2000), TTL: 64, Payload: k.payload}
			frame := f.Build(edgeMAC, peerMAC)
			b.Run(name+"/"+k.name+"/on", func(b *testing.B) {
				w := newWireFor(b, &Config{Stages: []Stage{RelayStage, MonitorStage}, Sessions: 16, Flows: 1 << 16})
				w.setRules(frame, FlowKey{f.Src, f.Dst}, k.rules)
				benchPass(b, w.program.objects.Quicway, frame)
			})
			b.Run(name+"/"+k.name+"/off", func(b *testing.B) {
				w := newWireFor(b, &Config{Sessions: 16})
				benchPass(b, w.program.objects.Quicway, frame)
			})
			b.Run(name+"/"+k.name+"/floor", func(b *testing.B) {
				newWireFor(b, &Config{Sessions: 16})
				defer attachTo(b, empty, "in0p")()
				benchPass(b, empty, frame)
			})
		}
		b.Run(name+"/new/on", func(b *testing.B) { benchNew(b, family, true, 1, empty) })
		b.Run(name+"/new/floor", func(b *testing.B) { benchNew(b, family, false, 1, empty) })
		b.Run(name+"/twice/on", func(b *testing.B) { benchNew(b, family, true, 2, empty) })
	}
}

// setRules adds a flow by frames, and sets its rules.
func (w *wire) setRules(frame []byte, key FlowKey, rules FlowRules) {
	w.Helper()
	flows, err := w.program.Monitor()
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { flows.Close() })
	for range 2 { // the second packet adds the flow
		if _, _, err := w.program.Test(w.in.Index, frame); err != nil {
			w.Fatal(err)
		}
	}
	if ok, err := flows.SetRules(key, &rules); err != nil || !ok {
		w.Fatalf("the rules of the flow are not set: %v", err)
	}
}

// benchPass measures a program that passes the frame.
func benchPass(b *testing.B, prog *ebpf.Program, frame []byte) {
	b.Helper()
	opts := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Repeat: 10000}
	n := 0
	for b.ResetTimer(); n < b.N; n += int(opts.Repeat) {
		opts.DataOut = opts.DataOut[:cap(opts.DataOut)]
		verdict, err := prog.Run(&opts)
		if err != nil || Verdict(verdict) != Pass {
			b.Fatalf("verdict %d, %v; want pass", verdict, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/op")
}

// benchNew measures the time for Initials of flows that are mostly new, each of so many packets: the
// addresses are chosen at random from more pairs than there is room for. A program that chooses them runs before the
// measured one, also in the floor. The stage reports each Initial whole, and Go reads the samples
// while the timer is stopped.
func benchNew(b *testing.B, family int, on bool, packets int, empty *ebpf.Program) {
	const pairs, repeat = 1 << 20, 2000
	w := newWireFor(b, &Config{Stages: []Stage{RelayStage, MonitorStage}, Sessions: 16, Flows: 1 << 17})
	flows, err := w.program.Monitor()
	if err != nil {
		b.Fatal(err)
	}
	defer flows.Close()
	then := empty
	if on {
		then = w.program.objects.Quicway
	}
	initial := append([]byte{0xc0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8}, make([]byte, 1186)...)
	f := packet.Frame{Src: alice.at(family, 1000), Dst: bob.at(family, 443), TTL: 64, Payload: initial}
	// The offset of the bytes to randomize: with IPv4 the addresses and ports.
	at := map[int]int{0: 14 + 12, 1: 14 + 8 + 4}[family]
	prog := w.withRandomID(w.randomPairs(pairs), at, packets, 1<<20, then)
	defer attachTo(b, prog, "in0p")()
	opts := ebpf.RunOptions{Data: f.Build(edgeMAC, peerMAC), DataOut: make([]byte, 2048), Repeat: repeat}
	n := 0
	for b.ResetTimer(); n < b.N; n += repeat {
		opts.DataOut = opts.DataOut[:cap(opts.DataOut)]
		if verdict, err := prog.Run(&opts); err != nil || Verdict(verdict) != Pass {
			b.Fatalf("verdict %d, %v; want pass", verdict, err)
		}
		b.StopTimer()
		for s := new(Sample); flows.Pending(); {
			if err := flows.Read(s); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/op")
	stats, err := w.program.Stats()
	if err != nil {
		b.Fatal(err)
	}
	// The second packet of a flow adds it.
	if added := stats[MonitorFlowNew]; on && (packets == 1 && added > uint64(n)/10 || packets == 2 && added < uint64(n)/3) {
		b.Fatalf("%d flows were added by %d packets: %v", added, n, stats)
	}
	b.ReportMetric(float64(stats[MonitorRingFull])/float64(n), "lost/op")
}

// randomPairs returns a map with random values.
func (w *wire) randomPairs(count uint32) *ebpf.Map {
	w.Helper()
	pairs, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: count})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { pairs.Close() })
	value := make([]byte, 16)
	for i := range count {
		rand.Read(value)
		if err := pairs.Put(i, value); err != nil {
			w.Fatal(err)
		}
	}
	return pairs
}

// BenchmarkFlowMemory reports how much kernel memory a flow takes.
func BenchmarkFlowMemory(b *testing.B) {
	const flows = DefaultFlows
	for range b.N {
		b.StopTimer()
		w := newWireFor(b, &Config{Stages: []Stage{RelayStage, MonitorStage}, Sessions: 16, Flows: flows})
		b.StartTimer()
		var bytes uint64
		for _, m := range []*ebpf.Map{w.program.objects.Flows, w.program.objects.Known, w.program.objects.Slots} {
			info, err := m.Info()
			if err != nil {
				b.Fatal(err)
			}
			n, ok := info.Memlock()
			if !ok {
				b.Fatal("the kernel does not report the size of a map")
			}
			bytes += n
		}
		b.ReportMetric(float64(bytes)/flows, "B/connection")
		w.program.Close()
	}
}
