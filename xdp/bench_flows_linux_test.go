package xdp

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/quicway/quicway/internal/nettest"
	"github.com/quicway/quicway/internal/packet"
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
	teach   func(*Flow) // what Go has said of its flow
}

func kinds() []kind {
	short := append([]byte{0x40, 1, 2, 3, 4, 5, 6, 7, 8}, make([]byte, 1191)...)
	rtp := append([]byte{0x80, 0x60, 0x12, 0x34}, make([]byte, 160)...)
	known := func(f *Flow) {
		for i := range f.Lanes {
			f.Lanes[i].Taught, f.Lanes[i].IDLen = ByID, 8
			copy(f.Lanes[i].ID[:], short[1:9])
		}
	}
	return []kind{
		{"short", short, known},
		{"other", rtp, func(f *Flow) { f.RuledOut = true }},
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
				w := newWireFor(b, &Config{Sessions: 16, Flows: 1 << 16})
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
func (w *wire) know(frame []byte, key FlowKey, teach func(*Flow)) {
	w.Helper()
	flows, err := w.program.Flows()
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { flows.Close() })
	if _, _, err := w.program.Test(w.in.Index, frame); err != nil {
		w.Fatal(err)
	}
	flow, ok, err := flows.Take(key)
	if err != nil || !ok {
		w.Fatalf("no flow: %v", err)
	}
	teach(&flow)
	if ok, err := flows.Put(key, &flow); err != nil || !ok {
		w.Fatalf("flow not put: %v", err)
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

// benchNew runs Initials of flows that are new each time, which Go is given whole.
func benchNew(b *testing.B, family int, on bool, empty *ebpf.Program) {
	w := newWireFor(b, &Config{Sessions: 16, Flows: 1 << 17})
	prog := empty
	if on {
		prog = w.program.objects.Quicway
		flows, err := w.program.Flows()
		if err != nil {
			b.Fatal(err)
		}
		defer flows.Close()
		go func() {
			var s Sample
			for flows.Read(&s) == nil {
			}
		}()
	} else {
		defer attachTo(b, empty, "in0p")()
	}
	initial := append([]byte{0xc0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8}, make([]byte, 1186)...)
	f := packet.Frame{Src: alice.at(family, 1000), Dst: bob.at(family, 443), TTL: 64, Payload: initial}
	frame := f.Build(edgeMAC, peerMAC)
	addr := map[int]int{0: 14 + 12, 1: 14 + 8 + 8}[family]
	var spent time.Duration
	b.ResetTimer()
	for n := range b.N {
		binary.BigEndian.PutUint32(frame[addr:], uint32(n)+0x0a000000)
		spent += runOnce(b, prog, frame)
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "ns/op")
}

// runOnce is how long the kernel says that a program took.
func runOnce(b *testing.B, prog *ebpf.Program, frame []byte) time.Duration {
	b.Helper()
	verdict, took, err := prog.Benchmark(frame, 1, nil)
	if err != nil || Verdict(verdict) != Pass {
		b.Fatalf("verdict %d, %v; want pass", verdict, err)
	}
	return took
}
