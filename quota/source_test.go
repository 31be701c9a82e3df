package quota

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestSourcesAreBounded checks that sources without connections are forgotten when others
// come, that those with connections stay, and that a source without room is held to the
// limits of all sources together.
func TestSourcesAreBounded(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now, MaxSources: 100, Source: Limits{Connections: 1}})
	keepers := make([]*Slot, 50)
	for i := range keepers {
		keepers[i] = wantAdmit(t, c, fmt.Sprintf("192.0.2.%d:1", i), true, PassNew)
	}
	for i := range 10_000 {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1)
		c.WantsRetry(a)
		if s := c.Stats(); s.Sources+s.Sites > 100 {
			t.Fatalf("%d sources and sites, want at most 100", s.Sources+s.Sites)
		}
	}
	for i := range keepers {
		wantAdmit(t, c, fmt.Sprintf("192.0.2.%d:2", i), true, Connections)
	}
	var more []*Slot
	for i := range 100 {
		more = append(more, wantAdmit(t, c, fmt.Sprintf("198.51.100.%d:1", i), true, PassNew))
	}
	wantLive(t, c, 150, 0)
	for _, slot := range append(keepers, more...) {
		slot.Release()
	}
	wantLive(t, c, 0, 0)
	clock.advance(2 * keep)
	for i := range 100 {
		c.WantsRetry(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i % 2)}), 1))
		c.WantsRetry(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 2, 0, byte(i)}), 1))
		clock.advance(2 * keep)
	}
	if s := c.Stats(); s.Sources > 10 {
		t.Errorf("%d sources are remembered though idle, want a few", s.Sources)
	}
}

func TestMasks(t *testing.T) {
	for _, tc := range []struct {
		v4, v6 int
		a, b   string
		same   bool
	}{
		{32, 64, "2001:db8::1", "2001:db8::8000:0:0:1", true},
		{32, 64, "2001:db8::1", "2001:db8:0:1::1", false},
		{32, 57, "2001:db8::1", "2001:db8:0:7f::1", true},
		{32, 57, "2001:db8::1", "2001:db8:0:80::1", false},
		{32, 128, "2001:db8::1", "2001:db8::2", false},
		{32, 64, "192.0.2.0", "192.0.2.1", false},
		{31, 64, "192.0.2.0", "192.0.2.1", true},
		{24, 64, "192.0.2.0", "192.0.2.255", true},
		{24, 64, "192.0.2.0", "192.0.3.0", false},
		{32, 64, "192.0.2.1", "::ffff:192.0.2.1", true},
		{32, 64, "::", "192.0.2.1", false},
	} {
		c := mustNew(t, &Config{IPv4Bits: tc.v4, IPv6Bits: tc.v6, Source: Limits{Connections: 1}})
		wantAdmit(t, c, netip.AddrPortFrom(netip.MustParseAddr(tc.a), 1).String(), true, PassNew)
		want := PassNew
		if tc.same {
			want = Connections
		}
		wantAdmit(t, c, netip.AddrPortFrom(netip.MustParseAddr(tc.b), 2).String(), true, want)
	}
}

// TestSitesAreForgotten checks that sites are forgotten with their sources.
func TestSitesAreForgotten(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now, MaxSources: 100, Source: Limits{Connections: 1}})
	for i := range 1000 {
		c.WantsRetry(netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 4: byte(i >> 8), 5: byte(i)}), 1))
		if s := c.Stats(); s.Sources+s.Sites > 100 || s.Sources == 0 {
			t.Fatalf("%d sources and %d sites, want some, and at most 100", s.Sources, s.Sites)
		}
		clock.advance(time.Millisecond)
	}
	wantAdmit(t, c, "[2001:db8::1]:1", true, PassNew)
	wantAdmit(t, c, "[2001:db8::1]:2", true, Connections)
}

// TestFloodResetsNoLimits checks that a source that has used up a rate stays remembered
// while any number of unused sources come.
func TestFloodResetsNoLimits(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now, MaxSources: 100, Source: Limits{AttemptRate: 0.01, AttemptBurst: 3}})
	f := &filter{c: c, idLen: 4}
	want := func(id byte, want Reason) {
		t.Helper()
		if _, why := f.decide(addr("192.0.2.1:1"), attempt(id), c.clock.now()); why != want {
			t.Errorf("attempt %d: got %v, want %v", id, why, want)
		}
	}
	for id := range byte(3) {
		want(id, PassNew)
	}
	want(3, AttemptRate)
	for i := range 2000 {
		clock.advance(time.Millisecond)
		c.Request(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
	}
	if s := c.Stats(); s.Sources < 90 || s.Sources > 100 {
		t.Errorf("%d sources are remembered, want about 100", s.Sources)
	}
	want(4, AttemptRate)
}
