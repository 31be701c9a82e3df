package datapath

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/quotatest"
	quic "github.com/quicway/quicway/internal/wire"
)

// BenchmarkQuota measures the time for a packet that the quota stage drops or passes, of one
// source, and of a random one of 131 072 sources. A program that chooses the source runs before
// the measured one, also in the floor. The floor drops all packets.
func BenchmarkQuota(b *testing.B) {
	for _, size := range []struct {
		name    string
		sources int
	}{{"1", 1}, {"128k", 1 << 17}} {
		for _, tc := range quotaBenches {
			for family, name := range families {
				b.Run(fmt.Sprintf("sources=%s/%s/%s", size.name, tc.name, name), func(b *testing.B) {
					benchQuota(b, &tc, family, size.sources, nil)
				})
			}
		}
		b.Run(fmt.Sprintf("sources=%s/floor", size.name), func(b *testing.B) {
			benchQuota(b, &quotaBench{want: Drop, payload: []byte{0x40}}, 0, size.sources, dropAll)
		})
	}
}

// quotaBench is a packet, and the state of its source.
type quotaBench struct {
	name    string
	payload []byte
	list    func(q *Quota, source netip.Prefix) error // sets the state of a source
	want    Verdict
}

var quotaBenches = []quotaBench{
	{"deny", []byte{0x40}, deny, Drop},
	{"established", make([]byte, 1200), denyNext, Pass},
	{"over-quota", overQuota.Build(), refuse, Drop},
	{"over-quota-token", overQuotaToken.Build(), refuse, Drop},
}

var (
	overQuota      = quotatest.Datagram{Type: quic.Initial, ID: 12, Size: 1280}
	overQuotaToken = quotatest.Datagram{Type: quic.Initial, ID: 4, Token: 105, Size: 1280}
)

func deny(q *Quota, source netip.Prefix) error { return q.Put(DenyList, source, time.Hour) }

// denyNext denies a source other than the given one, so that the tables have entries that do not
// match.
func denyNext(q *Quota, source netip.Prefix) error {
	b := source.Addr().As16()
	if b[12]++; source.Addr().Is6() {
		b[3]++
	}
	addr := netip.AddrFrom16(b).Unmap()
	return q.Put(DenyList, netip.PrefixFrom(addr, source.Bits()), time.Hour)
}

func refuse(q *Quota, source netip.Prefix) error {
	_, err := q.Refuse(source, time.Hour)
	return err
}

// benchSource returns a source by its number: an IPv4 address, or an IPv6 prefix of 64 bits.
func benchSource(family int, number uint32) netip.Prefix {
	if family == 0 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 10<<24|number))), 32)
	}
	b := [16]byte{0x20, 1, 0xd, 0xb8}
	binary.BigEndian.PutUint32(b[4:], 10<<24|number)
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

func benchQuota(b *testing.B, tc *quotaBench, family, sources int, instead asm.Instructions) {
	nettest.Namespace(b)
	g := newQuotaTest(b, &Config{Stages: []Stage{QuotaStage}, Prefixes: 1 << 18, Sources: 1 << 18, Attempts: 1024}, nil, 4)
	for i := range sources {
		if tc.list != nil {
			g.must(tc.list(g.quota, benchSource(family, uint32(i))))
		}
	}
	prog := g.program.objects.Quicway
	if instead != nil {
		var err error
		prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, AttachType: ebpf.AttachXDP, Instructions: instead, License: "MIT"})
		g.must(err)
		b.Cleanup(func() { prog.Close() })
	}
	from := netip.AddrPortFrom(benchSource(family, 0).Addr(), 1000)
	frame := frameTo(guardPort, from, tc.payload)
	if sources > 1 {
		at := 14 + 12
		if family == 1 {
			at = 14 + 8 + 4
		}
		prog = withRandomSource(b, at, uint32(sources-1), prog)
	}
	(&wire{TB: b}).link("q0", relayAB)
	defer attachTo(b, prog, "q0")()
	benchVerdict(b, prog, 0, frame, 10_000, tc.want) // the program does not change the frame, so it can run often
}

// withRandomSource returns a program that writes the number of a random source into the packet, and
// then calls another program.
func withRandomSource(b *testing.B, at int, mask uint32, then *ebpf.Program) *ebpf.Program {
	b.Helper()
	calls, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { calls.Close() })
	if err := calls.Put(uint32(0), uint32(then.FD())); err != nil {
		b.Fatal(err)
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, AttachType: ebpf.AttachXDP, License: "MIT", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.FnGetPrandomU32.Call(),
		asm.And.Imm(asm.R0, int32(mask)),
		asm.Or.Imm(asm.R0, 10<<24),
		asm.HostTo(asm.BE, asm.R0, asm.Word),
		asm.LoadMem(asm.R2, asm.R6, 0, asm.Word), // data
		asm.LoadMem(asm.R3, asm.R6, 4, asm.Word), // data_end
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, int32(at+4)),
		asm.JGT.Reg(asm.R4, asm.R3, "call"),
		asm.StoreMem(asm.R2, int16(at), asm.R0, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("call"),
		asm.LoadMapPtr(asm.R2, calls.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, int32(Aborted)),
		asm.Return(),
	}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { prog.Close() })
	return prog
}
