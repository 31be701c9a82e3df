package quota

import (
	"net/netip"
	"testing"
)

func TestDryRun(t *testing.T) {
	c := mustNew(t, &Config{DryRun: true, AlwaysRetry: true, Source: Limits{Connections: 1, RequestRate: 0.001, RequestBurst: 1}})
	if err := c.Deny(netip.MustParsePrefix("192.0.2.9/32"), 0, ""); err != nil {
		t.Fatal(err)
	}
	var slots []*Slot
	for _, from := range []string{"192.0.2.1:1", "192.0.2.1:2", "192.0.2.9:1"} {
		slots = append(slots, wantAdmit(t, c, from, true, PassNew))
	}
	for range 2 {
		if wait := c.Request(slots[0].Remote().Addr()); wait != 0 {
			t.Errorf("a request has to wait for %v in a dry run", wait)
		}
	}
	if c.WantsRetry(addr("192.0.2.2:1")) {
		t.Error("got a Retry in a dry run")
	}
	s := c.Stats()
	if s.Refused[Connections] != 1 || s.Refused[Denied] != 1 || s.Refused[RequestRate] != 1 || s.Retried != 1 || !s.DryRun {
		t.Errorf("counted %+v", s)
	}
	for _, slot := range slots {
		slot.Release()
	}
	wantLive(t, c, 0, 0)
}

// TestDryRunEndsNothing checks that an entry with End ends no connection in a dry run.
func TestDryRunEndsNothing(t *testing.T) {
	c := mustNew(t, &Config{DryRun: true})
	wantAdmit(t, c, "192.0.2.1:1", true, PassNew)
	p := netip.MustParsePrefix("192.0.2.1/32")
	if err := c.Add(Entry{List: DenyList, Prefix: p, End: true}); err != nil {
		t.Fatal(err)
	}
	if n := c.End(p); n != 1 {
		t.Errorf("%d were left to be ended, want 1", n)
	}
}

// TestDryRunServes checks that every client is served in a dry run, though refusals are
// counted.
func TestDryRunServes(t *testing.T) {
	runLab(t, &Config{DryRun: true}, func(l *lab) {
		if err := l.c.Deny(netip.MustParsePrefix("198.51.100.1/32"), 0, ""); err != nil {
			t.Fatal(err)
		}
		if err := l.visit("198.51.100.1"); err != nil {
			t.Error(err)
		}
		if s := l.c.Stats(); s.Dropped[Denied] == 0 || s.Refused[Denied] != 1 {
			t.Errorf("counted %+v", s)
		}
	})
}
