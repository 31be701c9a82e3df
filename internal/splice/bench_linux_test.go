package splice

import (
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/quicway/quicway/internal/test/nettest"
)

// benchRepeat is how often the kernel runs a program on one packet. Each run decrements the TTL.
const benchRepeat = 200

// BenchmarkHit measures the time for a packet that is forwarded: with data, and an acknowledgement
// with a SACK block. Each run gets what the run before has made, so the pair leads to itself.
func BenchmarkHit(b *testing.B) {
	r := newRig(b)
	for family, name := range familyNames {
		pair := loop(family)
		data, sacked := newSegment(family, fromClient), newSegment(family, fromClient)
		data.ttl, sacked.ttl = 255, 255
		data.options, data.payload = stamps(100, 200), make([]byte, 1000)
		sacked.options = append(stamps(100, 200), sack(1, 2)...)
		for kind, s := range map[string]*segment{"data": data, "SACK": sacked} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				r := r.with(b)
				r.program.pairs.pairs[family] = pair
				r.counted()
				r.bench(r.program.objects.SpliceIngress, s.build())
				if n := r.counted(); n[Forwarded] == 0 || len(n) != 1 {
					b.Fatalf("counted %v", n)
				}
			})
		}
	}
}

// BenchmarkMiss measures the time for a packet of another connection, while there are pairs and while
// there are none. The floor is a program that passes everything.
func BenchmarkMiss(b *testing.B) {
	r := newRig(b)
	floor, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.SchedCLS,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, next), asm.Return()},
		License:      "MIT",
	})
	if err != nil {
		nettest.Missing(b, "loading a program failed: "+err.Error())
	}
	defer floor.Close()
	for family, name := range familyNames {
		in, out := newSegment(family, fromClient), sent(family, fromClient)
		in.src, out.dst = upstreams[family], upstreams[family]
		in.payload = make([]byte, 1000)
		b.Run(name+"/floor", func(b *testing.B) { r.with(b).bench(floor, in.build()) })
		b.Run(name+"/ingress", func(b *testing.B) { r.with(b).bench(r.program.objects.SpliceIngress, in.build()) })
		b.Run(name+"/egress", func(b *testing.B) { r.with(b).bench(r.program.objects.SpliceEgress, out.build()) })
	}
	if err := r.program.flows.live.Set(uint32(0)); err != nil {
		b.Fatal(err)
	}
	b.Run("no pairs", func(b *testing.B) {
		r.with(b).bench(r.program.objects.SpliceIngress, newSegment(0, fromClient).build())
	})
}

// bench runs a program on a frame, and reports the time of one run: the mean, and the mean of the
// fastest system call, which other programs of a busy machine have not disturbed.
func (r *rig) bench(prog *ebpf.Program, frame []byte) {
	b := r.TB.(*testing.B)
	runs, best := 0, time.Hour
	for b.Loop() {
		start := time.Now()
		if _, err := prog.Run(&ebpf.RunOptions{Data: frame, Repeat: benchRepeat}); err != nil {
			b.Fatal(err)
		}
		best = min(best, time.Since(start))
		runs += benchRepeat
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(runs), "ns/packet")
	b.ReportMetric(float64(best.Nanoseconds())/benchRepeat, "best-ns/packet")
}

// BenchmarkMemory measures the memory of the kernel's maps for a pair.
func BenchmarkMemory(b *testing.B) {
	const pairs = 1 << 14
	total := 0
	for b.Loop() {
		p := mustLoad(b, &Config{MaxPairs: pairs})
		total = memory(b, p.objects.Pairs) + memory(b, p.objects.Flows)
	}
	b.ReportMetric(float64(total)/pairs, "B/pair")
}
