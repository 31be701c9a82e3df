package livetest

import (
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/quicway/quicway/internal/test/nettest"
)

// maxDelay bounds the delays that [Delays] tells apart, in microseconds.
const maxDelay = 1 << 15

// Delays drops the long packets that arrive at an interface, and counts how long each was on its
// way. A packet says when it was sent. Of a train only the first packet counts.
type Delays struct {
	counts *ebpf.Map // by microsecond
	prog   *ebpf.Program
}

// NewDelays returns one for frames that have the time of CLOCK_MONOTONIC, in nanoseconds and in the
// byte order of the host, at an offset.
func NewDelays(tb nettest.TB, offset int) *Delays {
	tb.Helper()
	d := &Delays{counts: newArray(tb, 8, maxDelay)}
	const length = 0         // of struct __sk_buff
	const next, drop = -1, 2 // verdicts of TCX
	d.prog = newProgram(tb, ebpf.SchedCLS, asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, length, asm.Word),
		asm.JLT.Imm(asm.R2, sunk, "pass"),
		asm.Mov.Imm(asm.R2, int32(offset)),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -8),
		asm.Mov.Imm(asm.R4, 8),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
		asm.FnKtimeGetNs.Call(),
		asm.LoadMem(asm.R1, asm.RFP, -8, asm.DWord),
		asm.Sub.Reg(asm.R0, asm.R1),
		asm.Div.Imm(asm.R0, int32(time.Microsecond)),
		asm.JLT.Imm(asm.R0, maxDelay, "count"), // unsigned
		asm.Mov.Imm(asm.R0, maxDelay-1),
		asm.StoreMem(asm.RFP, -4, asm.R0, asm.Word).WithSymbol("count"),
		asm.LoadMapPtr(asm.R1, d.counts.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
		asm.Mov.Imm(asm.R0, drop).WithSymbol("drop"),
		asm.Return(),
		asm.Mov.Imm(asm.R0, next).WithSymbol("pass"),
		asm.Return(),
	})
	return d
}

// Attach attaches the program to an interface of a host, until the end of the test.
func (d *Delays) Attach(tb nettest.TB, h *nettest.Host, iface string) {
	tb.Helper()
	tb.Cleanup(attachTCX(tb, h, iface, d.prog))
}

// Take returns how many packets have had each delay, in microseconds, and forgets them.
func (d *Delays) Take(tb nettest.TB) []uint64 {
	tb.Helper()
	keys, counts := make([]uint32, maxDelay), make([]uint64, maxDelay)
	var cursor ebpf.MapBatchCursor
	if n, err := d.counts.BatchLookup(&cursor, keys, counts, nil); n != maxDelay {
		tb.Fatalf("%d of %d counters: %v", n, maxDelay, err)
	}
	if _, err := d.counts.BatchUpdate(keys, make([]uint64, maxDelay), nil); err != nil {
		tb.Fatal(err)
	}
	return counts
}

// Quantile returns the delay that a part q of the packets have at most, in microseconds.
func Quantile(counts []uint64, q float64) float64 {
	var all, sum uint64
	for _, n := range counts {
		all += n
	}
	return float64(slices.IndexFunc(counts, func(n uint64) bool {
		sum += n
		return float64(sum) >= q*float64(all)
	}))
}
