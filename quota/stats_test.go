package quota

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestTop(t *testing.T) {
	c := mustNew(t, &Config{Now: newFakeClock().now, Source: Limits{Connections: 2}})
	for i := range 2 {
		wantAdmit(t, c, fmt.Sprintf("192.0.2.1:%d", i), true, PassNew)
		wantAdmit(t, c, fmt.Sprintf("192.0.2.2:%d", i), true, PassNew)
	}
	wantAdmit(t, c, "192.0.2.3:1", true, PassNew)
	if err := c.Deny(netip.MustParsePrefix("192.0.2.4/32"), 0, ""); err != nil {
		t.Fatal(err)
	}
	wantAdmit(t, c, "192.0.2.4:1", true, Denied)
	var got []string
	for _, s := range c.Top(3) {
		got = append(got, s.Source.Addr().String())
	}
	if want := "[192.0.2.4 192.0.2.1 192.0.2.2]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestTopOfMany checks Top with many sources in all shards, and with many values of n.
func TestTopOfMany(t *testing.T) {
	c := mustNew(t, nil)
	rng := rand.New(rand.NewPCG(1, 0))
	var want []SourceStats
	for i := range uint32(3000) {
		from := nth(i)
		at := c.sources.place(from.Addr())
		s := c.sources.lookupLocked(&at, c.clock.now())
		s.refused, s.admitted = uint64(rng.IntN(50)), uint64(rng.IntN(3))
		want = append(want, c.sources.statsOf(s))
	}
	slices.SortFunc(want, before)
	for _, n := range []int{-1, 0, 1, 10, 100, 2999, 3000, 3001, math.MaxInt} {
		if got := c.Top(n); !reflect.DeepEqual(got, want[:min(max(n, 0), len(want))]) && n > 0 || n <= 0 && len(got) > 0 {
			t.Errorf("the top %d of %d are %d, and not those", n, len(want), len(got))
		}
	}
}

// TestStatsAreCheap checks that Stats counts the entries of the lists, but does not ask the
// kernel for the packets of each entry.
func TestStatsAreCheap(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now})
	r := newRecorder(clock)
	c.enforcement.enforcer = r
	for i := range 10 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 32)
		if err := c.Add(Entry{List: List(i % 2), Prefix: p, Expires: clock.now().Add(time.Duration(i/2) * time.Minute)}); err != nil {
			t.Fatal(err)
		}
	}
	clock.advance(time.Minute)
	if s := c.Stats(); s.Denied != 3 || s.Allowed != 3 || r.asked != 0 {
		t.Errorf("%d are denied, %d allowed, and the kernel was asked %d times, want 3, 3, and 0", s.Denied, s.Allowed, r.asked)
	}
	for range c.Entries() {
	}
	if r.asked != 6 {
		t.Errorf("the kernel was asked %d times for the packets of 6 entries", r.asked)
	}
}

// TestStatsAsJSON checks that Stats can be encoded and decoded.
func TestStatsAsJSON(t *testing.T) {
	c := mustNew(t, &Config{Source: Limits{Connections: 1}})
	wantAdmit(t, c, "192.0.2.1:1", true, PassNew)
	wantAdmit(t, c, "192.0.2.1:2", true, Connections)
	want := c.Stats()
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Stats
	if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for why := range numReasons {
		var back Reason
		if text, err := why.MarshalText(); err != nil || back.UnmarshalText(text) != nil || back != why {
			t.Errorf("%v is read as %v, %v", why, back, err)
		}
	}
	if err := new(Reason).UnmarshalText([]byte("reason 99")); err == nil {
		t.Error("decoded an unknown reason")
	}
}
