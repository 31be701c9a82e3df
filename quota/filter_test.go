package quota

import (
	"net/netip"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/quotatest"
	"github.com/quicway/quicway/internal/wire"
)

// fakeClock is a clock that a test advances.
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

// inState makes a filter in the state of a case.
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
		t.Fatal("the case is about a known attempt, but its datagram is not one")
	}
	at, seed, end := c.sources.place(from.Addr()), c.sources.seed, c.clock.now()+instant(time.Hour)
	attempts := &at.shard.attempts
	if tc.State.Admitted || tc.State.Refused {
		attempts.put(attemptTag(seed, from, h.DstID), end, tc.State.Refused)
	}
	if tc.State.Admitted || tc.State.Neighbour {
		attempts.put(endpointTag(seed, from, nil), end, false)
	}
	if tc.State.Retried {
		attempts.put(endpointTag(seed, from, h.Token), end, false)
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
	if tc.State.NoPackets && !c.rates.takePacket(from.Addr(), c.clock.now()) {
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

// TestFilterDecisions checks the decisions in the table that all implementations of the
// filter share.
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

// TestTokenContinuesOnce checks that a token that was let in continues its attempt with
// one other connection ID only.
func TestTokenContinuesOnce(t *testing.T) {
	c := mustNew(t, &Config{Now: newFakeClock().now, Excess: Drop, Source: Limits{Connections: 1}})
	f := &filter{c: c, idLen: 4}
	from := addr("192.0.2.1:1000")
	want := func(id byte, want Reason) {
		t.Helper()
		d := quotatest.Datagram{Type: wire.Initial, ID: 4, Token: 50}
		b := d.Build()
		b[6] = id
		if _, why := f.decide(from, b, c.clock.now()); why != want {
			t.Errorf("ID %d: got %v, want %v", id, why, want)
		}
	}
	want(1, PassNew)
	wantAdmit(t, c, from.String(), true, PassNew)
	want(2, PassContinuing)
	want(3, Connections)
	want(1, PassFlow)
	want(2, PassFlow)
}

// TestCasesCoverReasons checks that there is a case for every reason of the filter, except
// for variants of another reason.
func TestCasesCoverReasons(t *testing.T) {
	covered := make(map[string]bool)
	for _, tc := range quotatest.Cases {
		covered[tc.Reason] = true
	}
	variants := map[Reason]bool{ConnectionRate: true, TotalConnections: true, TotalConnectionRate: true}
	notOfFilter := map[Reason]bool{HalfOpen: true, RequestRate: true, RouteRate: true}
	for why := range numReasons {
		if !covered[why.String()] && !variants[why] && !notOfFilter[why] {
			t.Errorf("no case of %v", why)
		}
	}
}

// FuzzFilter checks that the filter drops only Initials that a server must discard, and
// Initials of new attempts.
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
				t.Fatalf("pass %v, %v, for a packet that is not an Initial", pass, why)
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

// attempt returns the first Initial of an attempt.
func attempt(id byte) []byte {
	d := quotatest.Datagram{Type: wire.Initial, ID: 12, Size: 1280}
	b := d.Build()
	b[6] = id
	return b
}

// TestRefusalsAreAnsweredOnce checks that each attempt beyond the quota is answered once,
// and only a few in a second.
func TestRefusalsAreAnsweredOnce(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now, Source: Limits{Connections: 1}})
	f := &filter{c: c, idLen: 4}
	wantAdmit(t, c, "192.0.2.1:1", true, PassNew)
	want := func(id byte, wantPass bool, want Reason) {
		t.Helper()
		if pass, why := f.decide(addr("192.0.2.1:2"), attempt(id), c.clock.now()); pass != wantPass || why != want {
			t.Errorf("attempt %d: got pass %v, %v, want %v, %v", id, pass, why, wantPass, want)
		}
	}
	for id := range byte(10) {
		want(id, true, Connections)
		want(id, false, Repeated)
	}
	want(10, false, Connections)
	clock.advance(time.Second)
	want(11, true, Connections)
}

// TestExemptPass checks that packets of exempt sources pass the filter beyond all limits.
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

// TestNewAttemptIsNotRepeated checks that an attempt right after a refusal of the same
// address and port counts as a new one, which the filter sees by its connection ID.
func TestNewAttemptIsNotRepeated(t *testing.T) {
	c := mustNew(t, &Config{Now: newFakeClock().now, Source: Limits{Connections: 1}})
	f := &filter{c: c, idLen: 4}
	want := func(id byte, want Reason) {
		t.Helper()
		if pass, why := f.decide(addr("192.0.2.1:2"), attempt(id), c.clock.now()); !pass || why != want {
			t.Errorf("attempt %d: got pass %v, %v, want %v", id, pass, why, want)
		}
	}
	other := wantAdmit(t, c, "192.0.2.1:1", true, PassNew)
	for id := range byte(2) {
		want(id, Connections)
		wantAdmit(t, c, "192.0.2.1:2", false, Connections)
		wantAdmit(t, c, "192.0.2.1:2", false, Repeated)
	}
	other.Release()
	want(3, PassNew)
	wantAdmit(t, c, "192.0.2.1:2", false, PassNew).Release()
}

// TestExcessCostsAttempts checks that attempts beyond the quota are charged to the rate of
// attempts.
func TestExcessCostsAttempts(t *testing.T) {
	c := mustNew(t, &Config{Now: newFakeClock().now, Excess: Drop, Source: Limits{Connections: 1, AttemptRate: 0.001, AttemptBurst: 3}})
	f := &filter{c: c, idLen: 4}
	want := func(id byte, want Reason) {
		t.Helper()
		if _, why := f.decide(addr("192.0.2.1:1"), attempt(id), c.clock.now()); why != want {
			t.Errorf("attempt %d: got %v, want %v", id, why, want)
		}
	}
	slot := wantAdmit(t, c, "192.0.2.1:1", true, PassNew)
	want(0, Connections)
	want(1, Connections)
	slot.Release()
	want(2, PassNew)
	want(3, AttemptRate)
}

// TestTotalAttemptRate checks that attempts that a source's rate does not let in are not
// charged to the rate of all sources together.
func TestTotalAttemptRate(t *testing.T) {
	c := mustNew(t, &Config{Now: newFakeClock().now, Total: Limits{AttemptRate: 0.001, AttemptBurst: 2}, Source: Limits{AttemptRate: 0.001, AttemptBurst: 1}})
	f := &filter{c: c, idLen: 4}
	for i, tc := range []struct {
		from string
		want Reason
	}{
		{"192.0.2.1:1", PassNew},
		{"192.0.2.1:1", AttemptRate}, // beyond the rate of the source
		{"192.0.2.2:1", PassNew},
		{"192.0.2.3:1", AttemptRate},
	} {
		if _, why := f.decide(addr(tc.from), attempt(byte(i)), c.clock.now()); why != tc.want {
			t.Errorf("attempt %d: got %v, want %v", i, why, tc.want)
		}
	}
}

// TestExcessOfUnrememberedSource checks that attempts beyond the quota are dropped if their
// source is not remembered, since nothing counts the answers then.
func TestExcessOfUnrememberedSource(t *testing.T) {
	c := mustNew(t, &Config{Now: newFakeClock().now, MaxSources: 1, Total: Limits{Connections: 1}})
	wantAdmit(t, c, "[2001:db8::1]:1", true, PassNew)
	f := &filter{c: c, idLen: 4}
	if pass, why := f.decide(addr("[2001:db8::1]:2"), attempt(1), c.clock.now()); pass || why != TotalConnections {
		t.Errorf("got pass %v, %v", pass, why)
	}
}
