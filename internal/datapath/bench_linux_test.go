package datapath

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/test/nettest"
)

// benchRepeat is how often the kernel runs a program on one packet, whose TTL
// each time is one less.
const benchRepeat = 200

// BenchmarkRelay is what the kernel spends on a packet that it forwards, in a
// table of few IDs and of many, beside a program that sends every packet back as
// it is: the least that any program costs. A part of the system call that runs
// them is in all figures.
func BenchmarkRelay(b *testing.B) {
	floor := loadTX(b)
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
					if err := w.program.relay.PutRoute(strangers.ID(i), Route{Session: 5}); err != nil {
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
			defer attachTo(b, floor, "in0p")()
			f := w.good(family)
			benchRun(b, floor, w.in.Index, f.Build(edgeMAC, w.in.HardwareAddr))
		})
	}
}

// attachTo attaches a program to an interface, because one that is attached
// nowhere is made callable anew for each run, and returns what ends it.
func attachTo(b *testing.B, prog *ebpf.Program, name string) func() error {
	b.Helper()
	iface, err := net.InterfaceByName(name)
	if err != nil {
		b.Fatal(err)
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: iface.Index})
	if err != nil {
		b.Fatal(err)
	}
	return l.Close
}

// loadTX loads the empty program.
func loadTX(b *testing.B) *ebpf.Program {
	b.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.XDP,
		AttachType:   ebpf.AttachXDP,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, int32(TX)), asm.Return()},
		License:      "MIT",
	})
	if err != nil {
		nettest.Missing(b, "loading a program failed: "+err.Error())
	}
	b.Cleanup(func() { prog.Close() })
	return prog
}

// BenchmarkRelayRandom is BenchmarkRelay with packets of any of 1 048 576 IDs, of
// 104 858 sessions, of which none is in the cache. A program before ours draws
// them; it is in the floor as well.
func BenchmarkRelayRandom(b *testing.B) {
	for family, name := range families {
		b.Run(name+"/relay", func(b *testing.B) { benchRandom(b, family, false) })
		b.Run(name+"/floor", func(b *testing.B) { benchRandom(b, family, true) })
	}
}

func benchRandom(b *testing.B, family int, floor bool) {
	const sessions, perSession = 1<<20/10 + 1, 10
	w := newWireFor(b, &Config{Sessions: sessions, IDs: sessions*perSession + 64})
	w.circle(family)
	f := w.good(family)
	f.Src, f.Dst, f.TTL = bob.at(family, 2000), bob.at(family, 2000), 255
	frame := f.Build(edgeMAC, w.in.HardwareAddr)
	then := w.program.objects.Quicway
	if floor {
		then = loadTX(b)
	}
	prog := w.drawing(w.drawIDs(family, perSession), bytes.Index(frame, f.Payload)+1, then)
	defer attachTo(b, prog, "in0p")()
	benchRun(b, prog, w.in.Index, frame)
}

// drawIDs gives each session its IDs, and returns all of them in a map.
func (w *wire) drawIDs(family, perSession int) *ebpf.Map {
	w.Helper()
	const count = 1 << 20
	ids, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: count})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { ids.Close() })
	key := cid.NewKey().Deriver(cid.Peer)
	end := Leg{Remote: bob.at(family, 2000), Local: bob.at(family, 2000)}
	for i := range uint32(count) {
		session := i / uint32(perSession)
		id := key.ID(uint64(i))
		err := errors.Join(
			w.program.relay.PutRoute(id, Route{Session: session}),
			ids.Put(i, append(id.Bytes(), 0, 0, 0, 0)),
		)
		if i%uint32(perSession) == 0 {
			err = errors.Join(err, w.program.relay.PutSession(session, [2]Leg{end, end}), w.program.relay.SetDue(session, 0, 1<<30))
		}
		if err != nil {
			w.Fatal(err)
		}
	}
	return ids
}

// drawing is the program that draws an ID, and calls another with it.
func (w *wire) drawing(ids *ebpf.Map, at int, then *ebpf.Program) *ebpf.Program {
	w.Helper()
	calls, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { calls.Close() })
	if err := calls.Put(uint32(0), uint32(then.FD())); err != nil {
		w.Fatal(err)
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, AttachType: ebpf.AttachXDP, License: "MIT", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.FnGetPrandomU32.Call(),
		asm.And.Imm(asm.R0, 1<<20-1),
		asm.StoreMem(asm.RFP, -4, asm.R0, asm.Word),
		asm.LoadMapPtr(asm.R1, ids.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "call"),
		asm.LoadMem(asm.R2, asm.R6, 0, asm.Word), // data
		asm.LoadMem(asm.R3, asm.R6, 4, asm.Word), // data_end
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, int32(at+cid.Len)),
		asm.JGT.Reg(asm.R4, asm.R3, "call"),
		asm.LoadMem(asm.R3, asm.R0, 0, asm.DWord),
		asm.StoreMem(asm.R2, int16(at), asm.R3, asm.DWord),
		asm.LoadMem(asm.R3, asm.R0, 8, asm.Word),
		asm.StoreMem(asm.R2, int16(at+8), asm.R3, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("call"),
		asm.LoadMapPtr(asm.R2, calls.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, int32(Aborted)),
		asm.Return(),
	}})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { prog.Close() })
	return prog
}

// BenchmarkKernelMemory is what a session takes of the kernel's memory, with the IDs
// that a relay keeps there of both legs.
func BenchmarkKernelMemory(b *testing.B) {
	const sessions, perSession = defaultSessions, 10
	for range b.N {
		b.StopTimer()
		w := newWireFor(b, nil)
		empty := w.memory()
		key := cid.NewKey().Deriver(cid.Peer)
		b.StartTimer()
		for i := range uint64(sessions * perSession) {
			if err := w.program.relay.PutRoute(key.ID(i), Route{Session: uint32(i / perSession)}); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		b.ReportMetric(float64(w.memory())/sessions, "B/session")
		b.ReportMetric(float64(empty)/sessions, "B/session-empty")
		w.program.Close()
	}
}

// memory is what all maps take.
func (w *wire) memory() (sum uint64) {
	w.Helper()
	o := &w.program.objects
	for _, m := range []*ebpf.Map{o.Counters, o.Devices, o.Events, o.Next, o.Ports, o.Routes, o.Sessions} {
		info, err := m.Info()
		if err != nil {
			w.Fatal(err)
		}
		bytes, ok := info.Memlock()
		if !ok {
			w.Fatal("the kernel does not tell how large a map is")
		}
		sum += bytes
	}
	return sum
}

// circle opens a session whose packets are the same before and after, so that
// they can be forwarded again and again.
func (w *wire) circle(family int) {
	w.Helper()
	w.session(family, bob, relayAB)
	end := Leg{Remote: bob.at(family, 2000), Local: bob.at(family, 2000)}
	if err := w.program.relay.PutSession(3, [2]Leg{end, end}); err != nil {
		w.Fatal(err)
	}
	if err := w.program.relay.OpenPort(2000); err != nil {
		w.Fatal(err)
	}
}

func benchRun(b *testing.B, prog *ebpf.Program, iface int, frame []byte) {
	b.Helper()
	benchVerdict(b, prog, iface, frame, benchRepeat, TX)
}

// benchVerdict runs a program so often for each system call, which costs about as
// much as forty runs.
func benchVerdict(b *testing.B, prog *ebpf.Program, iface int, frame []byte, repeat int, want Verdict) {
	b.Helper()
	opts := ebpf.RunOptions{
		Data:    frame,
		DataOut: make([]byte, len(frame)+256),
		Context: testContext{DataEnd: uint32(len(frame)), IngressIfindex: uint32(iface)},
		Repeat:  uint32(repeat),
	}
	n := 0
	for b.ResetTimer(); n < b.N; n += repeat {
		opts.DataOut = opts.DataOut[:cap(opts.DataOut)]
		verdict, err := prog.Run(&opts)
		if err != nil || Verdict(verdict) != want {
			b.Fatalf("verdict %d, %v; want %d", verdict, err, want)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/op")
}

// BenchmarkGuarded is BenchmarkRelay for a process without CAP_PERFMON, beside one
// that has it: what the kernel's guards against speculation cost.
func BenchmarkGuarded(b *testing.B) {
	for family, name := range families {
		for _, perfmon := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/perfmon=%v", name, perfmon), func(b *testing.B) {
				w := newWireFor(b, &Config{Sessions: 16})
				if err := w.program.Close(); err != nil {
					b.Fatal(err)
				}
				if !perfmon {
					defer withoutPerfmon(b)()
				}
				p, err := Load(&Config{Sessions: 16})
				if err != nil {
					b.Fatal(err)
				}
				defer p.Close()
				if _, err := p.Attach("in0", Auto); err != nil {
					b.Fatal(err)
				}
				w.program = p
				w.circle(family)
				f := w.good(family)
				f.Src, f.Dst, f.TTL = bob.at(family, 2000), bob.at(family, 2000), 255
				benchRun(b, p.objects.Quicway, w.in.Index, f.Build(edgeMAC, w.in.HardwareAddr))
			})
		}
	}
}

// withoutPerfmon takes CAP_PERFMON from this thread, and CAP_SYS_ADMIN, which
// implies it. It returns what gives them back.
func withoutPerfmon(b *testing.B) func() {
	b.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had [2]unix.CapUserData
	if err := unix.Capget(&header, &had[0]); err != nil {
		b.Fatal(err)
	}
	fewer := had
	fewer[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
	fewer[1].Effective &^= 1 << (unix.CAP_PERFMON - 32)
	if err := unix.Capset(&header, &fewer[0]); err != nil {
		b.Fatal(err)
	}
	return func() {
		if err := unix.Capset(&header, &had[0]); err != nil {
			b.Fatal(err)
		}
	}
}
