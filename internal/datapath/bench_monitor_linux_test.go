package datapath

import (
	"crypto/rand"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/packet"
)

// loadPass loads the program that passes everything: the floor.
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
	teach   FlowRules // what Go has said of its flow
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

// BenchmarkMonitor is what the monitor stage costs, beside the same program
// without it, and an empty one. New flows are another each time, and run one by
// one, as is their floor.
func BenchmarkMonitor(b *testing.B) {
	empty := loadPass(b)
	for family, name := range families {
		for _, k := range kinds() {
			f := packet.Frame{Src: alice.at(family, 1000), Dst: bob.at(family, 2000), TTL: 64, Payload: k.payload}
			frame := f.Build(edgeMAC, peerMAC)
			b.Run(name+"/"+k.name+"/on", func(b *testing.B) {
				w := newWireFor(b, &Config{Stages: []Stage{RelayStage, MonitorStage}, Sessions: 16, Flows: 1 << 16})
				w.know(frame, FlowKey{f.Src, f.Dst}, k.teach)
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
		for _, on := range []bool{true, false} {
			b.Run(name+"/new/"+map[bool]string{true: "on", false: "floor"}[on], func(b *testing.B) {
				benchNew(b, family, on, empty)
			})
		}
	}
}

// know makes a flow known.
func (w *wire) know(frame []byte, key FlowKey, teach FlowRules) {
	w.Helper()
	flows, err := w.program.Monitor()
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { flows.Close() })
	if _, _, err := w.program.Test(w.in.Index, frame); err != nil {
		w.Fatal(err)
	}
	if ok, err := flows.SetRules(key, &teach); err != nil || !ok {
		w.Fatalf("flow not taught: %v", err)
	}
}

// benchPass is benchRun for what passes.
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

// benchNew runs Initials of flows that are mostly new, because they are drawn of
// more than there is room for. A program before ours draws them; it is in the floor
// as well. Go is given each of them whole, and reads them meanwhile.
func benchNew(b *testing.B, family int, on bool, empty *ebpf.Program) {
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
	// The last twelve bytes of what tells flows apart: of IPv4 all of it.
	at := map[int]int{0: 14 + 12, 1: 14 + 8 + 4}[family]
	prog := w.drawing(w.drawPairs(pairs), at, then)
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
	if on && stats[MonitorFlowNew] < uint64(n)/2 {
		b.Fatalf("%d of %d flows were new: %v", stats[MonitorFlowNew], n, stats)
	}
	b.ReportMetric(float64(stats[MonitorRingFull])/float64(n), "lost/op")
}

// drawPairs fills a map with random bytes.
func (w *wire) drawPairs(count uint32) *ebpf.Map {
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

// BenchmarkFlowMemory is what a flow takes of the kernel's memory.
func BenchmarkFlowMemory(b *testing.B) {
	const flows = DefaultFlows
	for range b.N {
		b.StopTimer()
		w := newWireFor(b, &Config{Stages: []Stage{RelayStage, MonitorStage}, Sessions: 16, Flows: flows})
		b.StartTimer()
		info, err := w.program.objects.Flows.Info()
		if err != nil {
			b.Fatal(err)
		}
		bytes, ok := info.Memlock()
		if !ok {
			b.Fatal("the kernel does not tell how large a map is")
		}
		b.ReportMetric(float64(bytes)/flows, "B/connection")
		w.program.Close()
	}
}
