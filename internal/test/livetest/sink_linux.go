package livetest

import (
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/quicway/quicway/internal/test/nettest"
)

// sunk is the length from which on a [Sink] counts packets. Others, as those of ARP, pass.
const sunk = 1000

// Sink counts and drops what arrives at an interface, if it is long.
type Sink struct {
	counter *ebpf.Map
	frames  *ebpf.Program // XDP
	trains  *ebpf.Program // TCX
}

// NewSink returns a sink.
func NewSink(tb nettest.TB) *Sink {
	tb.Helper()
	s := &Sink{counter: newArray(tb, 8, 1)}
	s.frames = newProgram(tb, ebpf.XDP, asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // data
		asm.LoadMem(asm.R3, asm.R1, 4, asm.Word), // data_end
		asm.Add.Imm(asm.R2, sunk),
		asm.JGT.Reg(asm.R2, asm.R3, "pass"),
		asm.LoadMapValue(asm.R1, s.counter.FD(), 0),
		asm.Mov.Imm(asm.R2, 1),
		asm.AddAtomic.Mem(asm.R1, asm.R2, asm.DWord, 0),
		asm.Mov.Imm(asm.R0, xdpDrop),
		asm.Return(),
		asm.Mov.Imm(asm.R0, xdpPass).WithSymbol("pass"),
		asm.Return(),
	})
	const length, segments = 0, 164 // of struct __sk_buff
	const next, drop = -1, 2        // verdicts of TCX
	s.trains = newProgram(tb, ebpf.SchedCLS, asm.Instructions{
		asm.Mov.Imm(asm.R0, next),
		asm.LoadMem(asm.R2, asm.R1, length, asm.Word),
		asm.JLT.Imm(asm.R2, sunk, "return"),
		asm.LoadMem(asm.R2, asm.R1, segments, asm.Word),
		asm.JNE.Imm(asm.R2, 0, "count"),
		asm.Mov.Imm(asm.R2, 1),
		asm.LoadMapValue(asm.R1, s.counter.FD(), 0).WithSymbol("count"),
		asm.AddAtomic.Mem(asm.R1, asm.R2, asm.DWord, 0),
		asm.Mov.Imm(asm.R0, drop),
		asm.Return().WithSymbol("return"),
	})
	return s
}

// Frames attaches the sink to an interface of a host as an XDP program. The other end of a veth then
// cuts trains of GSO into packets. Frames returns a function that detaches the sink.
func (s *Sink) Frames(tb nettest.TB, h *nettest.Host, iface string) (detach func()) {
	tb.Helper()
	return attachXDP(tb, h, iface, s.frames)
}

// Trains is like Frames, for a sink that gets trains whole, and counts their packets.
func (s *Sink) Trains(tb nettest.TB, h *nettest.Host, iface string) (detach func()) {
	tb.Helper()
	return attachTCX(tb, h, iface, s.trains)
}

// attachTCX attaches a program to what an interface of a host receives.
func attachTCX(tb nettest.TB, h *nettest.Host, iface string, prog *ebpf.Program) (detach func()) {
	tb.Helper()
	var l link.Link
	h.Do(func() error {
		i, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		l, err = link.AttachTCX(link.TCXOptions{Program: prog, Interface: i.Index, Attach: ebpf.AttachTCXIngress})
		return err
	})
	return func() { l.Close() }
}

// Count returns how many packets have arrived.
func (s *Sink) Count(tb nettest.TB) uint64 {
	tb.Helper()
	n, err := s.count()
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func (s *Sink) count() (n uint64, err error) {
	err = s.counter.Lookup(uint32(0), &n)
	return n, err
}
