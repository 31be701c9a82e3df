package quota

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/datapath"

	"github.com/quicway/quicway/internal/test/packet"
	"github.com/quicway/quicway/internal/test/quotatest"
	"github.com/quicway/quicway/internal/test/xdptest"
	"github.com/quicway/quicway/xdp"
)

const kernelPort = 443

// loadKernel loads an XDP program with only the quota stage.
func loadKernel(tb testing.TB) *xdp.Program {
	tb.Helper()
	program := xdptest.Load(tb, &xdp.Config{Stages: []xdp.Stage{xdp.QuotaStage}})
	return program
}

// both is a filter and an XDP program that get the same packets and have the same
// controller.
type both struct {
	testing.TB
	program *xdp.Program
	filter  *filter
	c       *Controller
}

func newBoth(tb testing.TB, program *xdp.Program, conf *Config, idLen int) *both {
	tb.Helper()
	conf.XDP, conf.Excess = program, Drop
	c := mustNew(tb, conf)
	c.enforcement.enforcer.guard(kernelPort, idLen)
	return &both{tb, program, &filter{c: c, idLen: idLen}, c}
}

func (b *both) close() {
	b.Helper()
	if s := b.c.Stats(); s.KernelErrors > 0 {
		b.Errorf("%d errors of the kernel", s.KernelErrors)
	}
	if err := b.c.Close(); err != nil {
		b.Error(err)
	}
}

// decide passes a packet to both, and checks that the kernel does not change it, and does
// not drop it if the filter passes it.
func (b *both) decide(from netip.AddrPort, payload []byte) (kernel bool, pass bool, why Reason) {
	b.Helper()
	to := netip.MustParseAddr("192.0.2.200")
	if from.Addr().Is6() {
		to = netip.MustParseAddr("2001:db8::200")
	}
	f := packet.Frame{Src: from, Dst: netip.AddrPortFrom(to, kernelPort), TTL: 64, Payload: payload}
	frame := f.Build(net.HardwareAddr{2, 0, 0, 0, 0, 3}, net.HardwareAddr{2, 0, 0, 0, 0, 1})
	verdict, out, err := b.program.Datapath().Test(0, frame)
	if err != nil {
		b.Fatal(err)
	}
	if verdict == datapath.Pass && !bytes.Equal(out, frame) {
		b.Errorf("passed, but changed:\n%x\n%x", frame, out)
	}
	pass, why = b.filter.decide(plainPort(from), payload, b.c.clock.now())
	if verdict != datapath.Pass && pass {
		b.Errorf("the kernel drops what the filter passes (%v) from %v:\n%x", why, from, payload[:min(len(payload), 80)])
	}
	return verdict == datapath.Pass, pass, why
}

// parityConf returns a configuration whose rates give no token back during a test.
func parityConf() *Config {
	return &Config{
		IPv6SiteBits: -1, HandshakeTimeout: time.Hour,
		Source: Limits{Connections: 1, ConnectionRate: -1, AttemptRate: 0.001, AttemptBurst: 6, PacketRate: 0.001, PacketBurst: 24},
		Overrides: []Override{
			{Prefix: netip.MustParsePrefix("10.128.0.0/9"), Limits: Limits{AttemptRate: 0.001, AttemptBurst: 2, PacketRate: -1}},
			{Prefix: netip.MustParsePrefix("2001:db8:8000::/33"), Exempt: true},
		},
	}
}

// FuzzParity checks that the kernel never drops a packet that the filter passes.
func FuzzParity(f *testing.F) {
	for i := range quotatest.Cases {
		n := byte(i)
		f.Add(byte(4), []byte{0, n, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, n, 1, 1, 0, n, 0, 0, 3, 0, 0, 0, 0, n, 0, 2})
		f.Add(byte(12), []byte{0, n, 0, 128, 4, 0, 0, 0, 0, n, 1, 1, 5, 0, 0, 0, 0, n, 0, 0, 0, n, 0, 1, 0, n, 0, 2})
	}
	program := loadKernel(f)
	run := uint32(0)
	f.Fuzz(func(t *testing.T, idLen byte, script []byte) {
		if len(script) > 400 {
			return
		}
		b := newBoth(t, program, parityConf(), int(idLen%21))
		defer b.close()
		run++
		b.play(run, script)
	})
}

// play runs a script. Each step has four bytes: the kind of step, its case, the source, and
// a variation. It returns the number of packets that the kernel has dropped.
func (b *both) play(run uint32, script []byte) (kernelDrops int) {
	b.Helper()
	var slots []*Slot
	for ; len(script) >= 4; script = script[4:] {
		step := [4]byte(script)
		from := parityAddr(run, step[2]>>6, uint16(step[2]&3))
		bits := netip.PrefixFrom(from.Addr(), from.Addr().BitLen()-int(step[3]&3))
		switch step[0] % 8 {
		case 2:
			if slot, err := b.c.Admit(from, true); err == nil {
				slots = append(slots, slot)
			}
		case 3:
			if len(slots) > 0 {
				slots[0].Release()
				slots = slots[1:]
			}
		case 4, 5:
			list := List(step[0] % 2)
			if step[1]&1 != 0 {
				b.c.Remove(list, bits)
			} else if err := b.c.Add(Entry{List: list, Prefix: bits}); err != nil {
				b.Fatal(err)
			}
		case 6: // the rest of the script is the datagram
			kernel, _, _ := b.decide(from, append(bytes.Clone(script[4:]), make([]byte, int(step[3])*8)...))
			if !kernel {
				kernelDrops++
			}
		default:
			payload := bytes.Clone(quotatest.Cases[int(step[1])%len(quotatest.Cases)].Datagram.Build())
			if at := 5 + int(step[3]>>1); step[3]&1 != 0 && at < len(payload) {
				payload[at] ^= 1 << (step[2] >> 2 & 7)
			}
			kernel, _, _ := b.decide(from, payload)
			if !kernel {
				kernelDrops++
			}
		}
	}
	return kernelDrops
}

// parityAddr returns an address that is different in each run. kind is IPv4 (0), IPv4 with
// an override (1), IPv6 (2), or exempt IPv6 (3).
func parityAddr(run uint32, kind byte, port uint16) netip.AddrPort {
	b := [16]byte{0x20, 1, 0xd, 0xb8}
	number := binary.BigEndian.AppendUint32(nil, run&(1<<22-1)<<1)
	switch kind {
	case 0:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, number[1], number[2], number[3]}), 1000+port)
	case 1:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, number[1] | 128, number[2], number[3]}), 1000+port)
	case 3:
		b[4] = 0x80
	}
	copy(b[5:], number[1:])
	return netip.AddrPortFrom(netip.AddrFrom16(b), 1000+port)
}

// TestParity checks every case, repeated, and with the source over quota, denied, and
// allowed, and that the kernel does drop packets.
func TestParity(t *testing.T) {
	program := loadKernel(t)
	run, drops := uint32(1<<21), 0
	for _, idLen := range []int{0, 4, 8, 12, 20} {
		b := newBoth(t, program, parityConf(), idLen)
		for kind := range byte(4) {
			for i := range quotatest.Cases {
				run++
				from, n := kind<<6, byte(i)
				drops += b.play(run, []byte{
					0, n, from, 0, 0, n, from, 0, // twice
					0, n + 1, from, 0, 0, n, from, 3, // another, and with another ID
					2, 0, from, 0, 2, 0, from, 0, // over quota
					0, n, from, 0, 0, n, from | 1, 0, 0, n + 7, from, 0, 0, n, from, 5,
					3, 0, 0, 0, // room again
					0, n, from | 1, 7, 0, n, from | 1, 9, 0, n, from | 1, 11, 0, n, from | 1, 13, 0, n, from | 1, 15,
					4, 0, from, 1, 0, n, from, 0, 4, 1, from, 1, // denied, and not any more
					5, 0, from, 2, 4, 0, from, 0, 0, n, from, 0, // allowed as well
					0, n, from, 0, 0, n, from | 2, 0,
				})
			}
		}
		b.close()
	}
	if drops < 500 {
		t.Errorf("the kernel has dropped %d packets", drops)
	}
}

// TestFlightsOfClientsInKernel checks that the kernel decides about the datagrams of quic-go
// clients like the filter, for the same reasons.
func TestFlightsOfClientsInKernel(t *testing.T) {
	program := loadKernel(t)
	reasons := map[Reason]xdp.Reason{
		PassOther: "quota_other", PassContinuing: "quota_continuing", PassFlow: "quota_known_attempt",
		PassNew: "quota_new", Connections: "quota_refused",
	}
	run := uint32(1)
	for _, f := range flightsOfClients {
		t.Run(f.name, func(t *testing.T) {
			sent := f.record(t)
			for usedUp := -1; usedUp < len(sent); usedUp++ {
				run++
				b := newBoth(t, program, &Config{Source: Limits{Connections: 1}}, f.idLen)
				from := parityAddr(run, 0, 0)
				for i, data := range sent {
					if i == usedUp {
						wantAdmit(t, b.c, from.String(), true, PassNew)
						wantAdmit(t, b.c, from.String(), true, Connections)
					}
					before, err := program.Stats()
					if err != nil {
						t.Fatal(err)
					}
					kernel, pass, why := b.decide(from, data)
					after, err := program.Stats()
					if err != nil {
						t.Fatal(err)
					}
					if r := reasons[why]; kernel != pass || after[r] != before[r]+1 {
						t.Errorf("used up before %d: datagram %d passes in the kernel: %v, in Go: %v, %v", usedUp, i, kernel, pass, why)
					}
				}
				b.close()
			}
		})
	}
}

// TestServersShareKernelPort checks that servers that share a port may come and go, and
// that the kernel leaves the port to Go while their connection IDs differ in length: a
// packet that continues a handshake with one server would be an attempt to the other.
func TestServersShareKernelPort(t *testing.T) {
	b := newBoth(t, loadKernel(t), &Config{}, 4)
	defer b.close()
	if err := b.c.Deny(netip.MustParsePrefix("192.0.2.0/24"), 0, ""); err != nil {
		t.Fatal(err)
	}
	want := func(when string, passes bool) {
		t.Helper()
		if kernel, _, _ := b.decide(netip.MustParseAddrPort("192.0.2.1:1"), []byte{0x40}); kernel != passes {
			t.Errorf("%s: the kernel passes a denied address: %v", when, kernel)
		}
	}
	want("one server", false)
	b.c.enforcement.enforcer.guard(kernelPort, 4)
	want("two", false)
	b.c.enforcement.enforcer.guard(kernelPort, 12)
	want("three of two kinds", true)
	b.c.enforcement.enforcer.unguard(kernelPort)
	b.c.enforcement.enforcer.guard(kernelPort, 4)
	want("another one", true)
	for range 3 {
		b.c.enforcement.enforcer.unguard(kernelPort)
		want("fewer", true)
	}
	b.c.enforcement.enforcer.guard(kernelPort, 12)
	want("one again", false)
	b.c.enforcement.enforcer.guard(kernelPort+1, 4)
	want("with another port", false)
	b.c.enforcement.enforcer.unguard(kernelPort + 1)
	want("and without", false)
}
