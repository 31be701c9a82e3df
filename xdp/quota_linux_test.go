package xdp

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/nettest"
	"github.com/quicway/quicway/internal/packet"
	"github.com/quicway/quicway/internal/quotatest"
	quic "github.com/quicway/quicway/internal/wire"
)

// guardPort is under the quota, and not the relay's.
const guardPort = 443

// guarded is a program with the quota stage, which nobody else uses.
type guarded struct {
	testing.TB
	program *Program
	quota   *Quota
}

// slow is a rate of which there is no second token.
var slow = RateLimit{Interval: time.Hour, Depth: time.Hour}

func newGuarded(tb testing.TB, conf *Config, policy *QuotaPolicy, idLen int) *guarded {
	tb.Helper()
	if conf == nil {
		conf = &Config{Sessions: -1, Prefixes: 64, Sources: 64, Flows: 64}
	}
	conf.Quota = true
	p, err := Load(conf)
	if errors.Is(err, ErrPermission) || errors.Is(err, ErrUnsupported) {
		nettest.Missing(tb, err.Error())
	}
	if err != nil {
		tb.Fatalf("%+v", err)
	}
	tb.Cleanup(func() {
		if err := p.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
	})
	q, err := p.Quota()
	if err != nil {
		tb.Fatal(err)
	}
	g := &guarded{tb, p, q}
	if policy == nil {
		policy = &QuotaPolicy{}
	}
	whole := *policy
	setDefault(&whole.IPv4Bits, 32)
	setDefault(&whole.IPv6Bits, 64)
	if whole.Patience == 0 {
		whole.Patience = time.Hour
	}
	g.must(q.SetPolicy(&whole))
	g.must(q.Guard(guardPort, idLen))
	g.must(q.Renew(time.Hour))
	return g
}

func (g *guarded) must(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

// frameTo is a datagram to a port of ours.
func frameTo(port uint16, from netip.AddrPort, payload []byte) []byte {
	to := netip.MustParseAddr("192.0.2.200")
	if from.Addr().Is6() {
		to = netip.MustParseAddr("2001:db8::200")
	}
	f := packet.Frame{Src: from, Dst: netip.AddrPortFrom(to, port), TTL: 64, Payload: payload}
	return f.Build(edgeMAC, net.HardwareAddr{2, 0, 0, 0, 0, 1})
}

// judge puts a frame through the program, wants one counter to move, and returns
// which. What passes must be unchanged.
func (g *guarded) judge(frame []byte) Reason {
	g.Helper()
	before, err := g.program.Stats()
	g.must(err)
	verdict, out, err := g.program.Test(0, frame)
	g.must(err)
	after, err := g.program.Stats()
	g.must(err)
	moved := numReasons
	for r := range numReasons {
		switch n := after[r] - before[r]; {
		case n == 0:
		case n == 1 && moved == numReasons:
			moved = r
		default:
			g.Errorf("counter %v moved by %d, and also %v", r, n, moved)
		}
	}
	want := Pass
	if moved >= QuotaDenied {
		want = Drop
	}
	if verdict != want {
		g.Errorf("verdict %d for %v, want %d", verdict, moved, want)
	}
	if verdict == Pass && !bytes.Equal(out, frame) {
		g.Errorf("passed, but changed:\n%x\n%x", frame, out)
	}
	return moved
}

// want judges a payload to the port under the quota.
func (g *guarded) want(from string, payload []byte, want Reason) {
	g.Helper()
	if got := g.judge(frameTo(guardPort, netip.MustParseAddrPort(from), payload)); got != want {
		g.Errorf("from %s: got %v, want %v", from, got, want)
	}
}

// initialWith is a first Initial with this ID.
func initialWith(id ...byte) []byte {
	d := quotatest.Datagram{Type: quic.Initial, ID: max(len(id), 12), Size: 1280}
	b := d.Build()
	copy(b[6:], id)
	return b
}

// quotaReasons are those of package quota's filter, by their names there.
var quotaReasons = map[string]Reason{
	"allowed": QuotaAllowed, "other": QuotaOther, "continuing": QuotaContinuing, "flow": QuotaFlow, "new": QuotaNew,
	"denied": QuotaDenied, "packet_rate": QuotaPacketRate, "short_initial": QuotaShortInitial,
	"connections": QuotaTurnedAway, "attempt_rate": QuotaAttemptRate,
}

// nextTick waits for the program's clock to move.
func nextTick() {
	for now := coarse(); coarse() == now; {
		time.Sleep(time.Millisecond)
	}
}

// inState brings a program into the state of a case.
func inState(t *testing.T, tc *quotatest.Case, from netip.AddrPort, b []byte) *guarded {
	t.Helper()
	policy := &QuotaPolicy{Limits: QuotaLimits{Attempts: RateLimit{Interval: time.Hour, Depth: 4 * time.Hour}}}
	if tc.State.NoPackets {
		policy.Limits.Packets = RateLimit{Interval: time.Hour, Depth: 4 * time.Hour}
	}
	idLen := 4
	if tc.IDLen != 0 {
		idLen = tc.IDLen
	}
	g := newGuarded(t, nil, policy, idLen)
	attempts := 4
	letIn := func(b []byte) {
		attempts--
		if got := g.judge(frameTo(guardPort, from, b)); got != QuotaNew {
			t.Fatalf("an attempt of the case's state is %v", got)
		}
	}
	other := bytes.Clone(b) // with another ID
	if len(other) > 6 {
		other[6]++
	}
	if tc.State.Admitted && tc.Datagram.Type == quic.Initial && len(b) >= 1200 {
		letIn(b)
	}
	if tc.State.Retried {
		letIn(other)
	}
	if tc.State.Neighbour {
		letIn(initialWith(99))
	}
	if tc.State.NoAttempts {
		for i := range byte(attempts) {
			letIn(initialWith(100 + i))
		}
	}
	for packets := 4 - (4 - attempts); tc.State.NoPackets && packets > 0; packets-- {
		g.judge(frameTo(guardPort, from, []byte{0x40}))
	}
	if tc.State.Excess {
		source := netip.PrefixFrom(from.Addr(), 64)
		if from.Addr().Is4() {
			source = netip.PrefixFrom(from.Addr(), 32)
		}
		_, err := g.quota.TurnAway(source.Masked(), time.Hour)
		g.must(err)
	}
	for list, entries := range [][]quotatest.Entry{DenyList: tc.State.Deny, AllowList: tc.State.Allow} {
		for _, e := range entries {
			ttl := time.Hour
			if e.Expired {
				ttl = 1 // nanosecond
			}
			g.must(g.quota.Put(List(list), netip.MustParsePrefix(e.Prefix), ttl))
		}
	}
	nextTick()
	return g
}

// TestQuotaDecisions runs the table that every implementation of the filter runs,
// but what it says of answers, which the program never gives.
func TestQuotaDecisions(t *testing.T) {
	nettest.Namespace(t)
	for i := range quotatest.Cases {
		tc := &quotatest.Cases[i]
		if tc.Answers {
			continue
		}
		t.Run(tc.Name, func(t *testing.T) {
			from := netip.MustParseAddrPort("192.0.2.1:1000")
			if tc.From != "" {
				from = netip.MustParseAddrPort(tc.From)
			}
			b := tc.Datagram.Build()
			g := inState(t, tc, from, b)
			want, ok := quotaReasons[tc.Reason]
			if !ok || tc.Pass != (want < QuotaDenied) {
				t.Fatalf("the case's reason %q is none of the program's", tc.Reason)
			}
			if got := g.judge(frameTo(guardPort, from, b)); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
			// Another port is none of its business.
			if got := g.judge(frameTo(guardPort+1, from, b)); got != PassOther {
				t.Errorf("to another port: got %v, want %v", got, PassOther)
			}
		})
	}
}
