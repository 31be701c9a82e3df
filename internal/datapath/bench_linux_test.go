package datapath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/test/nettest"
)

// benchRepeat is how often the kernel runs a program on one packet. Each run decrements the TTL.
const benchRepeat = 200

// BenchmarkRelay measures the time for a packet that the relay stage forwards, with few IDs in the
// map and with many. The floor is a program that sends every packet back unchanged. All results
// include a part of the system call that runs the program.
func BenchmarkRelay(b *testing.B) {
	floor := loadTX(b)
	for family, name := range families {
		for _, ids := range []struct {
			name  string
			count int
		}{{"1", 1}, {"1M", 1 << 20}} {
			b.Run(name+"/ids="+ids.name, func(b *testing.B) {
				w := newWireFor(b, &Config{Sessions: 16, IDs: 1<<20 + 64})
				w.loopSession(family)
				otherIDs := cid.NewKey().Deriver(cid.Peer)
				for i := range uint64(ids.count) {
					if err := w.program.relay.PutRoute(otherIDs.ID(i), Route{Session: 5}); err != nil {
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

// attachTo attaches a program to an interface, and returns a function that detaches it. The kernel
// runs a program that is not attached more slowly, because it makes it callable for each run.
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

// loadTX loads a program that sends every packet back unchanged.
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

// BenchmarkRelayRandom is BenchmarkRelay with a random one of 1 048 576 IDs, of 104 858 sessions,
// in each packet, so that map entries are rarely in the CPU's cache. A program that chooses the
// ID runs before the measured one, also in the floor.
func BenchmarkRelayRandom(b *testing.B) {
	for family, name := range families {
		b.Run(name+"/relay", func(b *testing.B) { benchRandom(b, family, false) })
		b.Run(name+"/floor", func(b *testing.B) { benchRandom(b, family, true) })
	}
}

func benchRandom(b *testing.B, family int, floor bool) {
	const sessions, perSession = 1<<20/10 + 1, 10
	w := newWireFor(b, &Config{Sessions: sessions, IDs: sessions*perSession + 64})
	w.loopSession(family)
	f := w.good(family)
	f.Src, f.Dst, f.TTL = bob.at(family, 2000), bob.at(family, 2000), 255
	frame := f.Build(edgeMAC, w.in.HardwareAddr)
	then := w.program.objects.Quicway
	if floor {
		then = loadTX(b)
	}
	prog := w.withRandomID(w.randomIDs(family, perSession), bytes.Index(frame, f.Payload)+1, 1, 1<<20, then)
	defer attachTo(b, prog, "in0p")()
	benchRun(b, prog, w.in.Index, frame)
}

// randomIDs adds sessions with their IDs, and returns a map of all IDs. The value of each has the last four
// bytes of the address that the session's packets come from, and their port, after the ID. Every session
// has another address.
func (w *wire) randomIDs(family, perSession int) *ebpf.Map {
	w.Helper()
	const count = 1 << 20
	ids, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 24, MaxEntries: count})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { ids.Close() })
	key := cid.NewKey().Deriver(cid.Peer)
	end := Leg{Remote: bob.at(family, 2000), Local: bob.at(family, 2000)}
	for i := range uint32(count) {
		session := i / uint32(perSession)
		id := key.ID(uint64(i))
		from := sourceOf(family, session)
		last := from.Addr().As16()
		value := binary.BigEndian.AppendUint16(append(id.Bytes(), last[12:]...), from.Port())
		err := errors.Join(
			w.program.relay.PutRoute(id, Route{Session: session}),
			ids.Put(i, append(value, make([]byte, 6)...)),
		)
		if i%uint32(perSession) == 0 {
			legs := [2]Leg{end, {Remote: from, Local: end.Local}}
			err = errors.Join(err, w.program.relay.PutSession(session, legs), w.program.relay.SetDue(session, 0, 64))
		}
		if err != nil {
			w.Fatal(err)
		}
	}
	return ids
}

// sourceOf returns the address of one leg of a session of randomIDs: so many hosts have ports that follow
// each other. The other leg is bob.
func sourceOf(family int, session uint32) netip.AddrPort {
	b := bob[family].AsSlice()
	binary.BigEndian.PutUint16(b[len(b)-2:], uint16(1000+session%8192))
	addr, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr, uint16(40000+session/8192))
}

// withRandomID returns a program that writes a random one of the first IDs of a map into the packet, with
// the address that it comes from if the map has that, and then calls another program. of is how many these are, a power of two. Every ID is for so many packets in a row, 1 or 2. The lowest bit of the packet
// says which of two it is.
func (w *wire) withRandomID(ids *ebpf.Map, at, packets int, of int32, then *ebpf.Program) *ebpf.Program {
	w.Helper()
	sourceAt := at - 17 // the last word of the source, before the destination and the UDP header
	if at > 60 {
		sourceAt = at - 29 // IPv6
	}
	calls, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { calls.Close() })
	if err := calls.Put(uint32(0), uint32(then.FD())); err != nil {
		w.Fatal(err)
	}
	var source asm.Instructions
	if ids.ValueSize() > 16 {
		source = asm.Instructions{
			asm.LoadMem(asm.R3, asm.R0, 12, asm.Word),
			asm.StoreMem(asm.R2, int16(sourceAt), asm.R3, asm.Word),
			asm.LoadMem(asm.R3, asm.R0, 16, asm.Half),
			asm.StoreMem(asm.R2, int16(at-9), asm.R3, asm.Half),
		}
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, AttachType: ebpf.AttachXDP, License: "MIT", Instructions: slices.Concat(asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.FnGetPrandomU32.Call(),
		asm.And.Imm(asm.R0, of-1),
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
		asm.LoadMem(asm.R3, asm.R2, 0, asm.Byte),
		asm.Xor.Imm(asm.R3, int32(packets-1)),
		asm.StoreMem(asm.R2, 0, asm.R3, asm.Byte),
		asm.JSet.Imm(asm.R3, int32(packets-1), "call"),
		asm.LoadMem(asm.R3, asm.R0, 0, asm.DWord),
		asm.StoreMem(asm.R2, int16(at), asm.R3, asm.DWord),
		asm.LoadMem(asm.R3, asm.R0, 8, asm.Word),
		asm.StoreMem(asm.R2, int16(at+8), asm.R3, asm.Word),
	}, source, asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("call"),
		asm.LoadMapPtr(asm.R2, calls.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, int32(Aborted)),
		asm.Return(),
	})})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { prog.Close() })
	return prog
}

// BenchmarkKernelMemory reports how much kernel memory a session takes, with the IDs that a relay
// stores for both legs.
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

// memory returns the kernel memory of the maps of the relay stage, in bytes.
func (w *wire) memory() (sum uint64) {
	w.Helper()
	o := &w.program.objects
	for _, m := range []*ebpf.Map{o.Commons, o.Counters, o.Devices, o.Events, o.Hints, o.Legs, o.Next, o.Ports, o.RouteSets} {
		info, err := m.Info()
		if err != nil {
			w.Fatal(err)
		}
		bytes, ok := info.Memlock()
		if !ok {
			w.Fatal("the kernel does not report the size of a map")
		}
		sum += bytes
	}
	return sum
}

// loopSession adds a session whose packets are the same before and after forwarding, except for the
// TTL, so that a packet can be forwarded repeatedly.
func (w *wire) loopSession(family int) {
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

// benchRun measures a program that sends the frame back.
func benchRun(b *testing.B, prog *ebpf.Program, iface int, frame []byte) {
	b.Helper()
	benchVerdict(b, prog, iface, frame, benchRepeat, TX)
}

// benchVerdict measures a program that returns a verdict for a frame. repeat is the number of runs
// for each system call, which takes as long as about forty runs.
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

// BenchmarkNoPerfmon is BenchmarkRelay with and without CAP_PERFMON. The difference is the time for
// the kernel's mitigations against speculative execution.
func BenchmarkNoPerfmon(b *testing.B) {
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
				w.loopSession(family)
				f := w.good(family)
				f.Src, f.Dst, f.TTL = bob.at(family, 2000), bob.at(family, 2000), 255
				benchRun(b, p.objects.Quicway, w.in.Index, f.Build(edgeMAC, w.in.HardwareAddr))
			})
		}
	}
}

// withoutPerfmon drops CAP_PERFMON, and CAP_SYS_ADMIN, which includes it, from this thread. It
// returns a function that restores them.
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
