package xdp

import (
	"net"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/nettest"
)

// benchRepeat is how often the kernel runs a program on one packet, whose TTL
// each time is one less.
const benchRepeat = 200

// BenchmarkRelay is what the kernel spends on a packet that it forwards, in a
// table of few IDs and of many, beside a program that sends every packet back as
// it is: the least that any program costs. A part of the system call that runs
// them is in all figures.
func BenchmarkRelay(b *testing.B) {
	floor, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.XDP,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, int32(TX)), asm.Return()},
		License:      "MIT",
	})
	if err != nil {
		nettest.Missing(b, "loading a program failed: "+err.Error())
	}
	defer floor.Close()
	for family, name := range families {
		for _, ids := range []struct {
			name  string
			count int
		}{{"1", 1}, {"1M", 1 << 20}} {
			b.Run(name+"/ids="+ids.name, func(b *testing.B) {
				w := newWireFor(b, &Config{Sessions: 16, IDs: 1<<20 + 64})
				w.circle(family)
				strangers := cid.NewKey().Deriver(cid.Peer)
				for i := range uint64(ids.count) {
					if err := w.program.PutRoute(strangers.ID(i), Route{Session: 5}); err != nil {
						b.Fatal(err)
					}
				}
				f := w.good(family)
				f.Src, f.Dst, f.TTL = bob.at(family, 2000), bob.at(family, 2000), 255
				benchRun(b, w.program.objects.Quicway, w.in.Index, f.Build(edgeMAC, w.in.HardwareAddr))
			})
		}
		b.Run(name+"/floor", func(b *testing.B) {
			w := newWireFor(b, &Config{Sessions: 16})
			// A program that is attached nowhere is made callable anew for
			// each run.
			peer, err := net.InterfaceByName("in0p")
			if err != nil {
				b.Fatal(err)
			}
			l, err := link.AttachXDP(link.XDPOptions{Program: floor, Interface: peer.Index})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			f := w.good(family)
			benchRun(b, floor, w.in.Index, f.Build(edgeMAC, w.in.HardwareAddr))
		})
	}
}

// circle opens a session whose packets are the same before and after, so that
// they can be forwarded again and again.
func (w *wire) circle(family int) {
	w.Helper()
	w.session(family, bob, relayAB)
	end := Leg{Remote: bob.at(family, 2000), Local: bob.at(family, 2000)}
	if err := w.program.PutSession(3, [2]Leg{end, end}); err != nil {
		w.Fatal(err)
	}
	if err := w.program.OpenPort(2000); err != nil {
		w.Fatal(err)
	}
}

func benchRun(b *testing.B, prog *ebpf.Program, iface int, frame []byte) {
	b.Helper()
	opts := ebpf.RunOptions{
		Data:    frame,
		DataOut: make([]byte, len(frame)+256),
		Context: testContext{DataEnd: uint32(len(frame)), IngressIfindex: uint32(iface)},
		Repeat:  benchRepeat,
	}
	n := 0
	for b.ResetTimer(); n < b.N; n += benchRepeat {
		opts.DataOut = opts.DataOut[:cap(opts.DataOut)]
		verdict, err := prog.Run(&opts)
		if err != nil || Verdict(verdict) != TX {
			b.Fatalf("verdict %d, %v", verdict, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/op")
}
