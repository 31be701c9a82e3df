package quota

import (
	"net/netip"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/quotatest"
	"github.com/quicway/quicway/internal/wire"
)

// fakeClock is one that a test moves.
type fakeClock struct{ t time.Time }

func newFakeClock() *fakeClock { return &fakeClock{time.Unix(1_700_000_000, 0)} }

func (c *fakeClock) now() time.Time          { return c.t }
func (c *fakeClock) advance(d time.Duration) { c.t = c.t.Add(d) }

func mustNew(tb testing.TB, conf *Config) *Controller {
	tb.Helper()
	c, err := New(conf)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// inState makes a filter that has come into the state of a case.
func inState(t *testing.T, tc *quotatest.Case, from netip.AddrPort, b []byte) *filter {
	t.Helper()
	clock := newFakeClock()
	conf := &Config{Now: clock.now, Source: Limits{Connections: 1, HalfOpen: 10, ConnectionRate: -1, AttemptRate: 0.001, AttemptBurst: 1, PacketRate: -1}}
	if tc.State.NoPackets {
		conf.Source.PacketRate, conf.Source.PacketBurst = 0.001, 1
	}
	c := mustNew(t, conf)
	f := &filter{c: c, idLen: 4}
	if tc.IDLen != 0 {
		f.idLen = tc.IDLen
	}
	h, err := wire.Parse(b, 0)
	if known := tc.State.Admitted || tc.State.Refused || tc.State.Retried; known && err != nil {
		t.Fatal("the case is of an attempt that is known, and has none")
	}
	at, seed, end := c.sources.place(from.Addr()), c.sources.seed, c.clock.now()+instant(time.Hour)
	flows := &at.shard.flows
	if tc.State.Admitted || tc.State.Refused {
		flows.put(attemptTag(seed, from, h.DstID), end, tc.State.Refused)
	}
	if tc.State.Admitted || tc.State.Neighbour {
		flows.put(endpointTag(seed, from, nil), end, false)
	}
	if tc.State.Retried {
		flows.put(endpointTag(seed, from, h.Token), end, false)
	}
	if tc.State.Excess {
		if _, err := c.Admit(netip.AddrPortFrom(from.Addr(), 9), true); err != nil {
			t.Fatal(err)
		}
	}
	s := c.sources.lookupLocked(&at, c.clock.now())
	for tc.State.Answered && answers.ok(s.answers, c.clock.now()) {
		answers.take(&s.answers, c.clock.now())
	}
	if tc.State.NoAttempts && !c.rates.takeAttemptLocked(s, c.clock.now()) {
		t.Fatal("no attempt")
	}
	if tc.State.NoPackets && !c.rates.takePacket(from.Addr(), &at, c.clock.now()) {
		t.Fatal("no packet")
	}
	for list, entries := range [][]quotatest.Entry{DenyList: tc.State.Deny, AllowList: tc.State.Allow} {
		for _, e := range entries {
			entry := Entry{List: List(list), Prefix: netip.MustParsePrefix(e.Prefix)}
			if e.Expired {
				entry.Expires = clock.now()
			}
			if err := c.Add(entry); err != nil {
				t.Fatal(err)
			}
		}
	}
	return f
}

// TestFilterDecisions runs the table that every implementation of the filter runs.
func TestFilterDecisions(t *testing.T) {
	names := make(map[string]bool)
	for i := range quotatest.Cases {
		tc := &quotatest.Cases[i]
		if names[tc.Name] {
			t.Errorf("two cases are called %q", tc.Name)
		}
		names[tc.Name] = true
		t.Run(tc.Name, func(t *testing.T) {
			from := addr("192.0.2.1:1000")
			if tc.From != "" {
				from = addr(tc.From)
			}
			b := tc.Datagram.Build()
			if want := tc.Datagram.Size; want != 0 && tc.Datagram.Cut == 0 && tc.Datagram.Type != wire.OneRTT && len(b) != want {
				t.Fatalf("the case is of %d bytes, want %d", len(b), want)
			}
			f := inState(t, tc, from, b)
			pass, why := f.decide(from, b, f.c.clock.now())
			if pass != tc.Pass || why.String() != tc.Reason {
				t.Errorf("got pass %v, %v, want %v, %v", pass, why, tc.Pass, tc.Reason)
			}
		})
	}
}

// TestTokenContinuesOnce: a token that has been let in carries one other ID, and
// no more.
func TestTokenContinuesOnce(t *testing.T) {
	c := mustNew(t, &Config{Now: newFakeClock().now, Excess: Drop, Source: Limits{Connections: 1}})
	f := &filter{c: c, idLen: 4}
	from := addr("192.0.2.1:1000")
	judge := func(id byte, want Reason) {
		t.Helper()
		d := quotatest.Datagram{Type: wire.Initial, ID: 4, Token: 50}
		b := d.Build()
		b[6] = id
		if _, why := f.decide(from, b, c.clock.now()); why != want {
			t.Errorf("ID %d: got %v, want %v", id, why, want)
		}
	}
	judge(1, PassNew)
	wantAdmit(t, c, from.String(), true, PassNew)
	judge(2, PassContinuing)
	judge(3, Connections)
	judge(1, PassFlow)
	judge(2, PassFlow)
}

// TestCasesCoverReasons: there is a case for every reason that the filter has, but
// those that are variants of another.
func TestCasesCoverReasons(t *testing.T) {
	covered := make(map[string]bool)
	for _, tc := range quotatest.Cases {
		covered[tc.Reason] = true
	}
	variants := map[Reason]bool{ConnectionRate: true, TotalConnections: true, TotalConnectionRate: true}
	notOfFilter := map[Reason]bool{HalfOpen: true, RequestRate: true}
	for why := range numReasons {
		if !covered[why.String()] && !variants[why] && !notOfFilter[why] {
			t.Errorf("no case of %v", why)
		}
	}
}

// FuzzFilter: whatever comes, the filter drops nothing but what a server must not
// answer, or what is an Initial of a new attempt.
func FuzzFilter(f *testing.F) {
	for i := range quotatest.Cases {
		f.Add(quotatest.Cases[i].Datagram.Build(), false)
		f.Add(quotatest.Cases[i].Datagram.Build(), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, excess bool) {
		c := mustNew(t, &Config{MaxSources: 1, Excess: Drop, Source: Limits{Connections: 1, AttemptRate: 0.001, AttemptBurst: 2}})
		from := addr("192.0.2.1:1000")
		if excess {
			if _, err := c.Admit(from, true); err != nil {
				t.Fatal(err)
			}
		}
		filter := &filter{c: c, idLen: 4}
		for range 3 {
			pass, why := filter.decide(from, b, c.clock.now())
			h, err := wire.Parse(b, 0)
			isInitial := err == nil && h.Type == wire.Initial
			isFirst := isInitial && (len(h.DstID) >= minFirstID || len(h.Token) > 0)
			switch {
			case !isInitial && (!pass || why != PassOther):
				t.Fatalf("pass %v, %v, of what is no Initial", pass, why)
			case isInitial && len(b) < minInitial && why != ShortInitial:
				t.Fatalf("%v of a short Initial", why)
			case isInitial && len(b) >= minInitial && !isFirst && !pass:
				t.Fatalf("dropped an Initial of a handshake under way: %v", why)
			case isFirst && len(b) >= minInitial && pass == excess:
				t.Fatalf("pass %v of a first Initial, over quota: %v", pass, excess)
			}
		}
	})
}

// attempt is the first Initial of one.
func attempt(id byte) []byte {
	d := quotatest.Datagram{Type: wire.Initial, ID: 12, Size: 1280}
	b := d.Build()
	b[6] = id
	return b
}

// TestRefusalsAreAnsweredOnce: each attempt once, and a few a second.
func TestRefusalsAreAnsweredOnce(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now, Source: Limits{Connections: 1}})
	f := &filter{c: c, idLen: 4}
	wantAdmit(t, c, "192.0.2.1:1", true, PassNew)
	judge := func(id byte, wantPass bool, want Reason) {
		t.Helper()
		if pass, why := f.decide(addr("192.0.2.1:2"), attempt(id), c.clock.now()); pass != wantPass || why != want {
			t.Errorf("attempt %d: got pass %v, %v, want %v, %v", id, pass, why, wantPass, want)
		}
	}
	for id := range byte(10) {
		judge(id, true, Connections)
		judge(id, false, Repeated)
	}
	judge(10, false, Connections)
	clock.advance(time.Second)
	judge(11, true, Connections)
}

// TestExemptPass: what is exempt passes the filter beyond all limits.
func TestExemptPass(t *testing.T) {
	c := mustNew(t, &Config{
		Now: newFakeClock().now, Excess: Drop,
		Total:     Limits{Connections: 1, PacketRate: 0.001, PacketBurst: 3, AttemptRate: 0.001, AttemptBurst: 3},
		Overrides: []Override{{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Exempt: true}},
	})
	wantAdmit(t, c, "192.0.2.2:1", true, PassNew)
	f := &filter{c: c, idLen: 4}
	for id := range byte(20) {
		if pass, why := f.decide(addr("192.0.2.1:1"), attempt(id), c.clock.now()); !pass || why != PassNew {
			t.Fatalf("attempt %d: got pass %v, %v", id, pass, why)
		}
	}
	if pass, why := f.decide(addr("192.0.2.3:1"), attempt(1), c.clock.now()); pass || why != TotalConnections {
		t.Errorf("another: got pass %v, %v", pass, why)
	}
}

// TestAnotherAttemptIsNoRepetition: of one port, right after a refusal: the filter
// sees by its ID that it is another.
func TestAnotherAttemptIsNoRepetition(t *testing.T) {
	c := mustNew(t, &Config{Now: newFakeClock().now, Source: Limits{Connections: 1}})
	f := &filter{c: c, idLen: 4}
	judge := func(id byte, want Reason) {
		t.Helper()
		if pass, why := f.decide(addr("192.0.2.1:2"), attempt(id), c.clock.now()); !pass || why != want {
			t.Errorf("attempt %d: got pass %v, %v, want %v", id, pass, why, want)
		}
	}
	other := wantAdmit(t, c, "192.0.2.1:1", true, PassNew)
	for id := range byte(2) {
		judge(id, Connections)
		wantAdmit(t, c, "192.0.2.1:2", false, Connections)
		wantAdmit(t, c, "192.0.2.1:2", false, Repeated)
	}
	other.Release()
	judge(3, PassNew)
	wantAdmit(t, c, "192.0.2.1:2", false, PassNew).Release()
}

// TestExcessCostsAttempts: what is beyond the quota is counted as an attempt, too.
func TestExcessCostsAttempts(t *testing.T) {
	c := mustNew(t, &Config{Now: newFakeClock().now, Excess: Drop, Source: Limits{Connections: 1, AttemptRate: 0.001, AttemptBurst: 3}})
	f := &filter{c: c, idLen: 4}
	judge := func(id byte, want Reason) {
		t.Helper()
		if _, why := f.decide(addr("192.0.2.1:1"), attempt(id), c.clock.now()); why != want {
			t.Errorf("attempt %d: got %v, want %v", id, why, want)
		}
	}
	slot := wantAdmit(t, c, "192.0.2.1:1", true, PassNew)
	judge(0, Connections)
	judge(1, Connections)
	slot.Release()
	judge(2, PassNew)
	judge(3, AttemptRate)
}

// TestAttemptsOfAll: have a rate, and it is theirs alone who are let in.
func TestAttemptsOfAll(t *testing.T) {
	c := mustNew(t, &Config{Now: newFakeClock().now, Total: Limits{AttemptRate: 0.001, AttemptBurst: 2}, Source: Limits{AttemptRate: 0.001, AttemptBurst: 1}})
	f := &filter{c: c, idLen: 4}
	for i, tc := range []struct {
		from string
		want Reason
	}{
		{"192.0.2.1:1", PassNew},
		{"192.0.2.1:1", AttemptRate}, // of the source: costs the others nothing
		{"192.0.2.2:1", PassNew},
		{"192.0.2.3:1", AttemptRate},
	} {
		if _, why := f.decide(addr(tc.from), attempt(byte(i)), c.clock.now()); why != tc.want {
			t.Errorf("attempt %d: got %v, want %v", i, why, tc.want)
		}
	}
}

// TestExcessOfWhoIsNotRemembered: is dropped, since nothing counts the answers.
func TestExcessOfWhoIsNotRemembered(t *testing.T) {
	c := mustNew(t, &Config{Now: newFakeClock().now, MaxSources: 1, Total: Limits{Connections: 1}})
	wantAdmit(t, c, "[2001:db8::1]:1", true, PassNew)
	f := &filter{c: c, idLen: 4}
	if pass, why := f.decide(addr("[2001:db8::1]:2"), attempt(1), c.clock.now()); pass || why != TotalConnections {
		t.Errorf("got pass %v, %v", pass, why)
	}
}
