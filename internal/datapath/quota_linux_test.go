package datapath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/packet"
	"github.com/quicway/quicway/internal/test/quotatest"
	quic "github.com/quicway/quicway/internal/wire"
)

// guardPort is a guarded port that is not a port of the relay.
const guardPort = 443

// quotaTest is a program with the quota stage.
type quotaTest struct {
	testing.TB
	program *Program
	quota   *Quota
}

// slow is a rate that allows one event during a test.
var slow = RateLimit{Interval: time.Hour, Depth: time.Hour}

// newQuotaTest loads a program, guards guardPort, and renews the lease. conf and policy may be nil.
func newQuotaTest(tb testing.TB, conf *Config, policy *QuotaPolicy, idLen int) *quotaTest {
	tb.Helper()
	if conf == nil {
		conf = &Config{Stages: []Stage{QuotaStage}, Prefixes: 64, Sources: 64, Attempts: 64}
	}
	p := mustLoad(tb, conf)
	q, err := p.Quota()
	if err != nil {
		tb.Fatal(err)
	}
	g := &quotaTest{tb, p, q}
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

func (g *quotaTest) must(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

// frameTo returns a datagram to a local port.
func frameTo(port uint16, from netip.AddrPort, payload []byte) []byte {
	to := netip.MustParseAddr("192.0.2.200")
	if from.Addr().Is6() {
		to = netip.MustParseAddr("2001:db8::200")
	}
	f := packet.Frame{Src: from, Dst: netip.AddrPortFrom(to, port), TTL: 64, Payload: payload}
	return f.Build(edgeMAC, net.HardwareAddr{2, 0, 0, 0, 0, 1})
}

// classify runs the program on a frame, and returns the reason that was counted. It checks that
// exactly one was counted, that the verdict matches it, and that a passed frame is unchanged.
func (g *quotaTest) classify(frame []byte) Reason {
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

// want classifies a payload to the guarded port, and checks the reason.
func (g *quotaTest) want(from string, payload []byte, want Reason) {
	g.Helper()
	if got := g.classify(frameTo(guardPort, netip.MustParseAddrPort(from), payload)); got != want {
		g.Errorf("from %s: got %v, want %v", from, got, want)
	}
}

// initialWith returns a first Initial whose connection ID begins with the given bytes.
func initialWith(id ...byte) []byte {
	d := quotatest.Datagram{Type: quic.Initial, ID: max(len(id), 12), Size: 1280}
	b := d.Build()
	copy(b[6:], id)
	return b
}

// quotaReasons maps the reasons of the filter in package quota to those of the program.
var quotaReasons = map[string]Reason{
	"allowed": QuotaAllowed, "other": QuotaOther, "continuing": QuotaContinuing, "flow": QuotaKnownAttempt, "new": QuotaNew,
	"denied": QuotaDenied, "packet_rate": QuotaPacketRate, "short_initial": QuotaShortInitial,
	"connections": QuotaRefused, "attempt_rate": QuotaAttemptRate,
}

// nextTick waits until the program's clock has passed what Go takes for its time now. Entries expire by that
// clock, which a test cannot set. Go's estimate is a tick ahead if one came while the clocks were compared.
func (g *quotaTest) nextTick() {
	g.Helper()
	for now := g.quota.now(); ; time.Sleep(time.Millisecond) {
		c, err := g.program.compareClocks()
		g.must(err)
		if c.program > now {
			return
		}
	}
}

// inState loads a program, and brings it into the state of a test case.
func inState(t *testing.T, tc *quotatest.Case, from netip.AddrPort, b []byte) *quotaTest {
	t.Helper()
	policy := &QuotaPolicy{Limits: QuotaLimits{Attempts: RateLimit{Interval: time.Hour, Depth: 4 * time.Hour}}}
	if tc.State.NoPackets {
		policy.Limits.Packets = RateLimit{Interval: time.Hour, Depth: 4 * time.Hour}
	}
	idLen := 4
	if tc.IDLen != 0 {
		idLen = tc.IDLen
	}
	g := newQuotaTest(t, nil, policy, idLen)
	attempts := 4
	admit := func(b []byte) {
		attempts--
		if got := g.classify(frameTo(guardPort, from, b)); got != QuotaNew {
			t.Fatalf("an attempt of the state: got %v, want QuotaNew", got)
		}
	}
	other := bytes.Clone(b) // with another ID
	if len(other) > 6 {
		other[6]++
	}
	if tc.State.Admitted && tc.Datagram.Type == quic.Initial && len(b) >= 1200 {
		admit(b)
	}
	if tc.State.Retried {
		admit(other)
	}
	if tc.State.Neighbour {
		admit(initialWith(99))
	}
	if tc.State.NoAttempts {
		for i := range byte(attempts) {
			admit(initialWith(100 + i))
		}
	}
	for packets := 4 - (4 - attempts); tc.State.NoPackets && packets > 0; packets-- {
		g.classify(frameTo(guardPort, from, []byte{0x40}))
	}
	if tc.State.Excess {
		source := netip.PrefixFrom(from.Addr(), 64)
		if from.Addr().Is4() {
			source = netip.PrefixFrom(from.Addr(), 32)
		}
		_, err := g.quota.Refuse(source.Masked(), time.Hour)
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
	g.nextTick()
	return g
}

// TestQuotaDecisions runs the test cases that every implementation of the filter runs, except those
// about answers, because the program sends none.
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
				t.Fatalf("the program has no reason %q", tc.Reason)
			}
			if got := g.classify(frameTo(guardPort, from, b)); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
			// The stage leaves other ports alone.
			if got := g.classify(frameTo(guardPort+1, from, b)); got != PassOther {
				t.Errorf("to another port: got %v, want %v", got, PassOther)
			}
		})
	}
}

// TestQuotaBesideRelay checks that a program with both stages, for the same port or different ones,
// relays packets that the quota stage passes, and no others.
func TestQuotaBesideRelay(t *testing.T) {
	for family, name := range families {
		t.Run(name, func(t *testing.T) {
			w := newWireFor(t, &Config{Stages: []Stage{RelayStage, QuotaStage}, Sessions: 16, Prefixes: 16, Sources: 16, Attempts: 16})
			w.session(family, bob, relayAB)
			q, err := w.program.Quota()
			if err != nil {
				t.Fatal(err)
			}
			must := (&quotaTest{TB: t}).must
			must(q.SetPolicy(&QuotaPolicy{IPv4Bits: 32, IPv6Bits: 64}))
			must(q.Guard(guardPort, 4))
			must(q.Renew(time.Hour))
			f := w.good(family)
			good := f.Build(edgeMAC, w.in.HardwareAddr)
			from := alice.at(family, 1000)
			denied := netip.PrefixFrom(from.Addr(), from.Addr().BitLen())
			must(q.Put(DenyList, denied, time.Hour))
			w.run(good, TX, Relayed) // the relay's port is not guarded
			w.run(frameTo(guardPort, from, []byte{0x40}), Drop, QuotaDenied)
			must(q.Guard(relayPort, 12))
			w.run(good, Drop, QuotaDenied)
			must(q.Put(DenyList, denied, 0))
			before := w.stats()
			if verdict, _, err := w.program.Test(w.in.Index, good); verdict != TX || err != nil {
				t.Errorf("verdict %d, %v, want %d", verdict, err, TX)
			}
			if after := w.stats(); after[QuotaOther] != before[QuotaOther]+1 || after[Relayed] != before[Relayed]+1 {
				t.Errorf("counted %v after %v", after, before)
			}
			must(q.Unguard(relayPort))
			w.run(good, TX, Relayed)
		})
	}
}

// TestQuotaExpiry checks that verdicts and the lease expire, and that Close ends all verdicts.
func TestQuotaExpiry(t *testing.T) {
	nettest.Namespace(t)
	g := newQuotaTest(t, nil, nil, 4)
	const from = "192.0.2.1:1000"
	source := netip.MustParsePrefix("192.0.2.1/32")
	frame := func(id byte) []byte { return frameTo(guardPort, netip.MustParseAddrPort(from), initialWith(id)) }
	g.must(g.quota.Put(DenyList, source, time.Hour))
	g.want(from, initialWith(1), QuotaDenied)
	g.must(g.quota.Put(DenyList, source, 50*time.Millisecond))
	nettest.Eventually(t, "the source is not denied any more", func() bool { return g.classify(frame(1)) == QuotaNew })
	_, err := g.quota.Refuse(source, time.Hour)
	g.must(err)
	g.want(from, initialWith(200), QuotaRefused)
	g.must(g.quota.Renew(0))
	g.want(from, initialWith(200), QuotaNoLease)
	g.must(g.quota.Renew(time.Hour))
	g.want(from, initialWith(200), QuotaRefused)
	g.must(g.quota.Renew(50 * time.Millisecond))
	nettest.Eventually(t, "the lease expires", func() bool { return g.classify(frame(200)) == QuotaNoLease })
	g.must(g.quota.Renew(time.Hour))
	if n, err := g.quota.Refuse(source, 0); n < 2 || err != nil {
		t.Errorf("%d packets were refused, %v, want at least 2", n, err)
	}
	g.want(from, initialWith(201), QuotaNew)
	g.must(g.quota.Put(DenyList, source, time.Hour))
	g.must(g.quota.Put(AllowList, netip.MustParsePrefix("192.0.2.0/24"), time.Hour))
	g.want(from, initialWith(202), QuotaAllowed)
	if _, err := g.program.Quota(); !errors.Is(err, ErrBusy) {
		t.Errorf("a second user: %v, want %v", err, ErrBusy)
	}
	g.must(g.quota.Close())
	g.must(g.quota.Close())
	g.want(from, initialWith(203), PassOther)
	if err := g.quota.Renew(time.Hour); !errors.Is(err, ErrClosed) {
		t.Errorf("renewed after Close: %v", err)
	}
	again, err := g.program.Quota()
	g.must(err)
	g.must(again.Guard(guardPort, 4))
	g.must(again.Renew(time.Hour))
	g.want(from, initialWith(204), QuotaNew)
	none, err := Load(&Config{Sessions: 4})
	g.must(err)
	defer none.Close()
	if _, err := none.Quota(); !errors.Is(err, ErrConfig) {
		t.Errorf("without the stage: %v, want %v", err, ErrConfig)
	}
}

// TestQuotaRates checks the rates of attempts and packets of each source, the exceptions, and that
// drops are reported.
func TestQuotaRates(t *testing.T) {
	nettest.Namespace(t)
	two := RateLimit{Interval: time.Hour, Depth: 2 * time.Hour}
	g := newQuotaTest(t, nil, &QuotaPolicy{
		Limits: QuotaLimits{Attempts: two},
		Exceptions: map[netip.Prefix]QuotaLimits{
			netip.MustParsePrefix("198.51.100.0/24"): {},
			netip.MustParsePrefix("203.0.113.0/24"):  {Packets: two},
			netip.MustParsePrefix("2001:db8::/32"):   {Attempts: slow},
		},
	}, 4)
	for id := range byte(2) {
		g.want("192.0.2.1:1000", initialWith(id), QuotaNew)
	}
	g.want("192.0.2.1:1001", initialWith(3), QuotaAttemptRate)
	g.want("192.0.2.1:1000", initialWith(1), QuotaKnownAttempt)
	g.want("192.0.2.2:1000", initialWith(1), QuotaNew)
	for id := range byte(10) {
		g.want("198.51.100.1:1000", initialWith(id), QuotaNew)
	}
	for range 2 {
		g.want("203.0.113.1:1000", []byte{0x40}, QuotaOther)
	}
	g.want("203.0.113.1:1000", []byte{0x40}, QuotaPacketRate)
	g.want("203.0.113.2:1000", []byte{0x40}, QuotaOther)
	g.want("[2001:db8::1]:1", initialWith(1), QuotaNew)
	g.want("[2001:db8:0:0:1::1]:1", initialWith(2), QuotaAttemptRate) // of the same 64 bits
	g.want("[2001:db8:0:1::1]:1", initialWith(2), QuotaNew)
	want := []SourceDrops{
		{netip.MustParseAddr("192.0.2.1"), QuotaAttemptRate, 1},
		{netip.MustParseAddr("203.0.113.1"), QuotaPacketRate, 1},
		{netip.MustParseAddr("2001:db8::"), QuotaAttemptRate, 1},
	}
	for d := range g.quota.Drops(t.Context()) {
		if d != want[0] {
			t.Errorf("reported %+v, want %+v", d, want[0])
		}
		if want = want[1:]; len(want) == 0 {
			break
		}
	}
}

// TestQuotaExpect checks that Initials of a peer that was dialed pass, although its source is
// refused, and those of another port do not.
func TestQuotaExpect(t *testing.T) {
	nettest.Namespace(t)
	g := newQuotaTest(t, nil, nil, 12)
	for _, from := range []string{"192.0.2.1:1000", "[2001:db8::1]:1000"} {
		peer := netip.MustParseAddrPort(from)
		g.must(g.quota.Expect(peer, time.Hour))
		_, err := g.quota.Refuse(netip.PrefixFrom(peer.Addr(), min(peer.Addr().BitLen(), 64)).Masked(), time.Hour)
		g.must(err)
		g.want(from, initialWith(1), QuotaContinuing)
		g.want(netip.AddrPortFrom(peer.Addr(), 1001).String(), initialWith(1), QuotaRefused)
	}
}

// TestQuotaFull checks that expired entries make room for new ones, and that Put and Refuse return
// ErrFull when there are none.
func TestQuotaFull(t *testing.T) {
	nettest.Namespace(t)
	g := newQuotaTest(t, &Config{Stages: []Stage{QuotaStage}, Prefixes: 4, Sources: 4, Attempts: 4}, nil, 4)
	nth := func(i int) netip.Prefix { // not a single source, which would be in another map
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, byte(i)}), 24)
	}
	for _, ttl := range []time.Duration{1, time.Hour} {
		for i := range 4 {
			g.must(g.quota.Put(DenyList, nth(i+10*int(ttl%7)), ttl))
			_, err := g.quota.Refuse(nth(i+10*int(ttl%7)), ttl)
			g.must(err)
		}
		g.nextTick()
	}
	if err := g.quota.Put(DenyList, nth(99), time.Hour); !errors.Is(err, ErrFull) {
		t.Errorf("a fifth prefix: %v, want %v", err, ErrFull)
	}
	if _, err := g.quota.Refuse(nth(99), time.Hour); !errors.Is(err, ErrFull) {
		t.Errorf("a fifth source: %v, want %v", err, ErrFull)
	}
	g.must(g.quota.Put(DenyList, nth(99), 0))
}

// TestQuotaDeniedSources checks that sources are denied one by one, and that those whose set in the
// table is full are in the trie.
func TestQuotaDeniedSources(t *testing.T) {
	nettest.Namespace(t)
	for family, name := range families {
		t.Run(name, func(t *testing.T) {
			g := newQuotaTest(t, &Config{Stages: []Stage{QuotaStage}, Prefixes: 8, Sources: 8, Attempts: 8}, nil, 4)
			wantAll := func(want Reason, packets uint64) {
				t.Helper()
				for i := range uint32(12) {
					source := benchSource(family, i)
					from := netip.AddrPortFrom(source.Addr(), 1000)
					g.want(from.String(), []byte{0x40}, want)
					if n, err := g.quota.Packets(DenyList, source); n != packets || err != nil {
						t.Errorf("%d packets of source %d, %v, want %d", n, i, err, packets)
					}
				}
				g.want(netip.AddrPortFrom(benchSource(family, 99).Addr(), 1000).String(), []byte{0x40}, QuotaOther)
			}
			put := func(ttl time.Duration) {
				t.Helper()
				for i := range uint32(12) {
					g.must(g.quota.Put(DenyList, benchSource(family, i), ttl))
				}
			}
			wantAll(QuotaOther, 0)
			put(time.Hour)
			wantAll(QuotaDenied, 1)
			put(2 * time.Hour) // replaces the entry
			wantAll(QuotaDenied, 1)
			put(0)
			wantAll(QuotaOther, 0)
			put(1)
			g.nextTick()
			wantAll(QuotaOther, 0)

			// Sources move from the trie to the table when there is room again.
			put(time.Hour)
			for i := range uint32(8) {
				g.must(g.quota.Put(DenyList, benchSource(family, i), 0))
			}
			for _, ttl := range []time.Duration{time.Hour, 0} {
				for i := range uint32(4) {
					g.must(g.quota.Put(DenyList, benchSource(family, 8+i), ttl))
				}
			}
			wantAll(QuotaOther, 0)

			// A source in a denied prefix stays denied when its own entry expires, and
			// a longer prefix than a source denies only its own addresses.
			first := benchSource(family, 0)
			around, _ := first.Addr().Prefix(first.Bits() - 4)
			address, _ := first.Addr().Prefix(first.Addr().BitLen())
			from := netip.AddrPortFrom(first.Addr(), 1).String()
			g.must(g.quota.Put(DenyList, around, time.Hour))
			put(1)
			g.nextTick()
			wantAll(QuotaDenied, 0)
			g.must(g.quota.Put(DenyList, around, 0))
			g.must(g.quota.Put(DenyList, address, time.Hour))
			g.want(from, []byte{0x40}, QuotaDenied)
			g.must(g.quota.Put(DenyList, address, 0))
			g.must(g.quota.Put(DenyList, first, time.Hour))
			g.want(from, []byte{0x40}, QuotaDenied)
			g.must(g.quota.Put(AllowList, around, time.Hour))
			g.want(from, []byte{0x40}, QuotaAllowed)
			g.must(g.quota.Close())

			again, err := g.program.Quota()
			g.must(err)
			g.must(again.SetPolicy(&QuotaPolicy{IPv4Bits: 24, IPv6Bits: 56}))
			g.must(again.Guard(guardPort, 4))
			g.must(again.Renew(time.Hour))
			g.must(again.Put(DenyList, benchSource(family, 77), time.Hour)) // not a single source by this policy
			g.want(from, []byte{0x40}, QuotaOther)
		})
	}
}

// TestQuotaTokenContinuesOnce checks that an admitted token admits one more connection ID, and no
// others.
func TestQuotaTokenContinuesOnce(t *testing.T) {
	nettest.Namespace(t)
	g := newQuotaTest(t, nil, nil, 4)
	const from = "192.0.2.1:1000"
	token := func(id byte) []byte {
		d := quotatest.Datagram{Type: quic.Initial, ID: 4, Token: 105, Size: 1280}
		b := d.Build()
		b[6] = id
		return b
	}
	g.want(from, token(1), QuotaNew)
	_, err := g.quota.Refuse(netip.MustParsePrefix("192.0.2.1/32"), time.Hour)
	g.must(err)
	g.want(from, token(2), QuotaContinuing)
	g.want(from, token(3), QuotaRefused)
	g.want(from, token(1), QuotaKnownAttempt)
	g.want(from, token(2), QuotaKnownAttempt)
}

// TestQuotaRefusalExpires checks that a refusal expires.
func TestQuotaRefusalExpires(t *testing.T) {
	nettest.Namespace(t)
	g := newQuotaTest(t, nil, nil, 4)
	from := netip.MustParseAddrPort("192.0.2.1:1000")
	_, err := g.quota.Refuse(netip.MustParsePrefix("192.0.2.1/32"), 50*time.Millisecond)
	g.must(err)
	frame := frameTo(guardPort, from, initialWith(1))
	nettest.Eventually(t, "the refusal expires", func() bool { return g.classify(frame) == QuotaNew })
}

// TestQuotaHashCollisions checks that connection IDs do not collide that were chosen with
// knowledge of the hash function, but not of the keys. The differences between these cancel out
// in hash functions with one multiplication per word.
func TestQuotaHashCollisions(t *testing.T) {
	nettest.Namespace(t)
	g := newQuotaTest(t, nil, nil, 4)
	const from = "192.0.2.1:1000"
	id := make([]byte, 20)
	g.want(from, initialWith(id...), QuotaNew)
	_, err := g.quota.Refuse(netip.MustParsePrefix("192.0.2.1/32"), time.Hour)
	g.must(err)
	g.want(from, initialWith(id...), QuotaKnownAttempt)
	for shift := range 63 {
		other := bytes.Clone(id)
		other[0] = 0x80
		binary.BigEndian.PutUint64(other[8:], 1<<63|1<<shift)
		g.want(from, initialWith(other...), QuotaRefused)
	}
	g.want(from, initialWith(append(id[:19:19], 1)...), QuotaRefused)
	g.want(from, initialWith(id[:19]...), QuotaRefused)
	g.want("192.0.2.1:1001", initialWith(id...), QuotaRefused)
}

// TestQuotaPassesOddFrames checks that frames that are not plain UDP over IP pass, also from denied
// prefixes: the packet filter in package quota sees what the kernel's network stack makes of them.
func TestQuotaPassesOddFrames(t *testing.T) {
	nettest.Namespace(t)
	g := newQuotaTest(t, nil, nil, 4)
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		g.must(g.quota.Put(DenyList, netip.MustParsePrefix(all), time.Hour))
	}
	v4 := frameTo(guardPort, netip.MustParseAddrPort("192.0.2.1:1000"), initialWith(1))
	v6 := frameTo(guardPort, netip.MustParseAddrPort("[2001:db8::1]:1000"), initialWith(1))
	const ip4, ip6, udp4, udp6 = 14, 14, 14 + 20, 14 + 40
	put := func(frame []byte, at int, b ...byte) []byte {
		frame = bytes.Clone(frame)
		copy(frame[at:], b)
		return frame
	}
	insert := func(frame []byte, at int, b ...byte) []byte {
		return slices.Concat(frame[:at], b, frame[at:])
	}
	for name, frame := range map[string][]byte{
		"VLAN":                          insert(v4, 12, 0x81, 0, 0, 1),
		"two VLANs":                     insert(v6, 12, 0x88, 0xa8, 0, 1, 0x81, 0, 0, 1),
		"another EtherType":             put(v4, 12, 8, 6),
		"IPv6 said to be IPv4":          put(v6, 12, 8, 0),
		"version 5":                     put(v4, ip4, 0x55),
		"version 5 of IPv6":             put(v6, ip6, 0x50),
		"options":                       insert(put(v4, ip4, 0x46), udp4, 1, 1, 1, 1),
		"first fragment":                put(v4, ip4+6, 0x20, 0),
		"later fragment":                put(v4, ip4+6, 0, 1),
		"TCP":                           put(v4, ip4+9, 6),
		"IPv6 hop-by-hop header":        insert(put(v6, ip6+6, 0), udp6, 17, 0, 1, 4, 0, 0, 0, 0),
		"IPv6 fragment":                 insert(put(v6, ip6+6, 44), udp6, 17, 0, 0, 1, 0, 0, 0, 1),
		"truncated":                     v4[:len(v4)-1],
		"nothing but Ethernet":          append(bytes.Clone(v4[:14]), make([]byte, 4)...)[:14],
		"part of an IP header":          v4[:ip4+19],
		"part of an IPv6 header":        v6[:ip6+39],
		"part of a UDP header":          v4[:udp4+7],
		"UDP longer than IP":            put(v4, udp4+4, 0xff, 0xff),
		"UDP shorter than IP":           put(v4, udp4+4, 0, 100),
		"UDP of IPv6 shorter":           put(v6, udp6+4, 0, 100),
		"UDP shorter than its header":   put(put(v4, udp4+4, 0, 4), ip4+2, 0, 24),
		"the same, IPv6":                put(put(v6, udp6+4, 0, 7), ip6+4, 0, 7),
		"UDP and IPv6 without a length": put(put(v6, udp6+4, 0, 0), ip6+4, 0, 0),
		"IP shorter than its header":    put(v4, ip4+2, 0, 10),
	} {
		if got := g.classify(frame); got != PassOther {
			t.Errorf("%s: got %v, want %v", name, got, PassOther)
		}
	}
	for _, frame := range [][]byte{v4, v6, append(bytes.Clone(v4), make([]byte, 6)...)} {
		if got := g.classify(frame); got != QuotaDenied {
			t.Errorf("plain: got %v, want %v", got, QuotaDenied)
		}
	}
}

// TestQuotaCloseClearsRates checks that the next user of the stage begins with full token buckets.
func TestQuotaCloseClearsRates(t *testing.T) {
	nettest.Namespace(t)
	g := newQuotaTest(t, nil, &QuotaPolicy{Limits: QuotaLimits{Attempts: slow, Packets: RateLimit{Interval: time.Hour, Depth: 2 * time.Hour}}}, 4)
	for _, from := range []string{"192.0.2.1:1000", "[2001:db8::1]:1000"} {
		g.want(from, initialWith(1), QuotaNew)
		g.want(from, initialWith(2), QuotaAttemptRate)
		g.want(from, initialWith(3), QuotaPacketRate)
	}
	g.must(g.quota.Close())
	quota, err := g.program.Quota()
	g.must(err)
	second := RateLimit{Interval: time.Second, Depth: time.Second}
	g.must(quota.SetPolicy(&QuotaPolicy{IPv4Bits: 32, IPv6Bits: 64, Limits: QuotaLimits{Attempts: second, Packets: second}}))
	g.must(quota.Guard(guardPort, 4))
	g.must(quota.Renew(time.Hour))
	for _, from := range []string{"192.0.2.1:1000", "[2001:db8::1]:1000"} {
		g.want(from, initialWith(4), QuotaNew)
	}
}
