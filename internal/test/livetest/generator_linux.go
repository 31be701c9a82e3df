package livetest

import (
	"fmt"
	"math/bits"
	"net"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// Head is how many bytes a [Generator] writes anew into each frame: the headers of Ethernet,
// IPv4 and UDP, and the first bytes of the datagram.
const Head = 64

// Generator sends frames out of an interface of a host, by an XDP program that the kernel runs
// on frames of its own (live frames). The frames have different heads in turn.
type Generator struct {
	host  *nettest.Host
	iface *net.Interface
	frame []byte
	heads *ebpf.Map
	state *ebpf.Map
	prog  *ebpf.Program
}

// generatorState is the value of the only entry of the program's map.
type generatorState struct {
	Next, Mask uint32 // of the next head; the number of heads in use, less one
	Sent       uint64
}

// NewGenerator returns a generator for an interface of a host. The heads, of which there are a
// power of two, are the beginnings of frames whose rest is that of the first frame.
func NewGenerator(tb nettest.TB, h *nettest.Host, iface string, frame []byte, heads [][Head]byte) *Generator {
	tb.Helper()
	if bits.OnesCount(uint(len(heads))) != 1 {
		tb.Fatalf("%d heads are no power of two", len(heads))
	}
	g := &Generator{host: h, frame: frame}
	g.heads = newArray(tb, Head, len(heads))
	g.state = newArray(tb, 16, 1)
	keys := make([]uint32, len(heads))
	for i := range keys {
		keys[i] = uint32(i)
	}
	if _, err := g.heads.BatchUpdate(keys, heads, nil); err != nil {
		tb.Fatal(err)
	}
	h.Do(func() (err error) { g.iface, err = net.InterfaceByName(iface); return err })
	g.prog = newProgram(tb, ebpf.XDP, g.instructions())
	g.Use(tb, len(heads))
	return g
}

func newArray(tb nettest.TB, value, entries int) *ebpf.Map {
	tb.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(value), MaxEntries: uint32(entries)})
	if err != nil {
		nettest.Missing(tb, "making a map failed: "+err.Error())
	}
	tb.Cleanup(func() { m.Close() })
	return m
}

func newProgram(tb nettest.TB, kind ebpf.ProgramType, code asm.Instructions) *ebpf.Program {
	tb.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: kind, Instructions: code, License: "MIT"})
	if err != nil {
		nettest.Missing(tb, "loading a program failed: "+err.Error())
	}
	tb.Cleanup(func() { prog.Close() })
	return prog
}

// Verdicts of XDP programs.
const (
	xdpDrop = 1
	xdpPass = 2
)

// instructions writes the next head into the frame, since whoever had the page before has changed
// it, and sends the frame.
func (g *Generator) instructions() asm.Instructions {
	code := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMapValue(asm.R7, g.state.FD(), 0),
		asm.LoadMem(asm.R1, asm.R7, 0, asm.Word), // Next
		asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word),
		asm.LoadMem(asm.R2, asm.R7, 4, asm.Word), // Mask
		asm.Add.Imm(asm.R1, 1),
		asm.And.Reg(asm.R1, asm.R2),
		asm.StoreMem(asm.R7, 0, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.R7, 8, asm.DWord), // Sent
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R7, 8, asm.R1, asm.DWord),
		asm.LoadMapPtr(asm.R1, g.heads.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R2, asm.R6, 0, asm.Word), // data
		asm.LoadMem(asm.R3, asm.R6, 4, asm.Word), // data_end
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, Head),
		asm.JGT.Reg(asm.R4, asm.R3, "drop"),
	}
	for at := int16(0); at < Head; at += 8 {
		code = append(code,
			asm.LoadMem(asm.R1, asm.R0, at, asm.DWord),
			asm.StoreMem(asm.R2, at, asm.R1, asm.DWord),
		)
	}
	return append(code,
		asm.Mov.Imm(asm.R1, int32(g.iface.Index)),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
		asm.Mov.Imm(asm.R0, xdpDrop).WithSymbol("drop"),
		asm.Return(),
	)
}

// Attach attaches the program to its interface, where it would send on what arrives. The kernel
// takes milliseconds for each run of a program that is attached nowhere. Attach returns a function
// that detaches it.
func (g *Generator) Attach(tb nettest.TB) (detach func()) {
	tb.Helper()
	return attachXDP(tb, g.host, g.iface.Name, g.prog)
}

// attachXDP attaches a program to an interface of a host, in native mode.
func attachXDP(tb nettest.TB, h *nettest.Host, iface string, prog *ebpf.Program) (detach func()) {
	tb.Helper()
	var l link.Link
	h.Do(func() error {
		i, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		l, err = link.AttachXDP(link.XDPOptions{Program: prog, Interface: i.Index, Flags: link.XDPDriverMode})
		return err
	})
	return func() { l.Close() }
}

// Use makes the generator take only the first heads, which are a power of two.
func (g *Generator) Use(tb nettest.TB, heads int) {
	tb.Helper()
	if err := g.state.Put(uint32(0), &generatorState{Mask: uint32(heads - 1)}); err != nil {
		tb.Fatal(err)
	}
}

// sent returns how many frames have been sent since the last call of Use.
func (g *Generator) sent() (uint64, error) {
	var s generatorState
	err := g.state.Lookup(uint32(0), &s)
	return s.Sent, err
}

const (
	// burst is how many frames are on their way at once: fewer than a socket of a relay has room
	// for.
	burst = 512
	// lost is how long a packet may take.
	lost = 100 * time.Millisecond
	// vain is how many bursts in a row, of which nothing arrives, show that nothing ever will.
	vain = 50
)

// Flood sends n frames, or some more, in bursts. It waits until each burst has arrived at the sink,
// but not for what is lost. It returns how many have arrived, and fails if nothing arrives for
// seconds.
func (g *Generator) Flood(s *Sink, n uint64) (arrived uint64, err error) {
	err = g.host.Run(func() error {
		start, err := s.count()
		for empty := 0; arrived < n && err == nil; {
			before := arrived
			if arrived, err = g.burst(s); err != nil {
				return err
			}
			if arrived -= start; arrived > before {
				empty = 0
			} else if empty++; empty == vain {
				return fmt.Errorf("of %d bursts nothing has arrived at the sink: what is between does not forward", vain)
			}
		}
		return err
	})
	return arrived, err
}

// burst sends frames, and returns what the sink has counted when they have arrived.
func (g *Generator) burst(s *Sink) (counted uint64, err error) {
	before, err := s.count()
	if err != nil {
		return 0, err
	}
	sent, err := g.sent()
	if err != nil {
		return 0, err
	}
	opts := ebpf.RunOptions{Data: g.frame, Repeat: burst, Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES}
	if _, err := g.prog.Run(&opts); err != nil {
		return 0, fmt.Errorf("send frames: %w", err)
	}
	now, err := g.sent() // which is more than a burst if a signal has arrived
	if err != nil {
		return 0, err
	}
	for deadline := time.Now().Add(lost); ; {
		counted, err = s.count()
		if err != nil || counted-before >= now-sent || time.Now().After(deadline) {
			return counted, err
		}
		// Let the relay work, if it is on the same CPU.
		_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
}
