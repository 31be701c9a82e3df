package quota

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// wantAdmit checks the result of admitting a connection: PassNew, or why it is refused.
func wantAdmit(t *testing.T, c *Controller, from string, validated bool, want Reason) *Slot {
	t.Helper()
	st := stageUnvalidated
	if validated {
		st = stageLive
	}
	slot, err := c.admission.admit(plainPort(addr(from)), st, true)
	var refused *RefusedError
	switch {
	case err == nil && want != PassNew:
		t.Errorf("%s was admitted, want %v", from, want)
	case err != nil && (!errors.As(err, &refused) || !errors.Is(err, ErrRefused) || refused.Reason != want):
		t.Errorf("%s: got %v, want %v", from, err, want)
	}
	return slot
}

// mustAdmit admits a connection of something other than a transport, whose address is not
// validated.
func mustAdmit(t *testing.T, c *Controller, from string) *Slot {
	t.Helper()
	slot, err := c.Admit(addr(from), false)
	if err != nil {
		t.Fatal(err)
	}
	return slot
}

// wantLive checks the numbers of connections and of half-open attempts.
func wantLive(t testing.TB, c *Controller, connections, halfOpen int) {
	t.Helper()
	if s := c.Stats(); s.Connections != connections || s.HalfOpen != halfOpen {
		t.Errorf("got %d connections and %d half open, want %d and %d", s.Connections, s.HalfOpen, connections, halfOpen)
	}
}

func TestLiveLimits(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now, Source: Limits{Connections: 2}, Site: Limits{Connections: 3}, Total: Limits{Connections: 4}})
	a := wantAdmit(t, c, "[2001:db8::1]:1", true, PassNew)
	wantAdmit(t, c, "[2001:db8::2]:2", true, PassNew) // the same /64
	wantAdmit(t, c, "[2001:db8::3]:3", true, Connections)
	wantAdmit(t, c, "[2001:db8:0:1::1]:4", true, PassNew) // the same /48
	wantAdmit(t, c, "[2001:db8:0:2::1]:5", true, Connections)
	wantAdmit(t, c, "[2001:db8:1::1]:6", true, PassNew)
	wantAdmit(t, c, "192.0.2.1:7", true, TotalConnections)
	wantLive(t, c, 4, 0)
	a.Release()
	a.Release()
	wantLive(t, c, 3, 0)
	wantAdmit(t, c, "192.0.2.1:8", true, PassNew)
	wantAdmit(t, c, "192.0.2.1:8", true, TotalConnections)
}

// TestForgedAddressesTakeNothing checks that attempts from a forged address fill only the
// pool of half-open attempts: the owner of the address gets a Retry, and then all its
// connections.
func TestForgedAddressesTakeNothing(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now, Source: Limits{Connections: 5, HalfOpen: 3, ConnectionRate: 1, ConnectionBurst: 5}})
	for i := range 1000 {
		from := fmt.Sprintf("192.0.2.1:%d", 1000+i)
		if !c.WantsRetry(addr(from)) {
			_, _ = c.Admit(addr(from), false)
		}
	}
	if s := c.Stats(); s.HalfOpen > 3 || s.Connections != 0 {
		t.Errorf("forged packets have %d half open and %d connections, want at most 3 and none", s.HalfOpen, s.Connections)
	}
	if !c.WantsRetry(addr("192.0.2.1:1")) {
		t.Error("the victim gets no Retry, though the pool is full")
	}
	for i := range 5 {
		wantAdmit(t, c, fmt.Sprintf("192.0.2.1:%d", 1+i), true, PassNew)
	}
	wantAdmit(t, c, "192.0.2.1:6", true, Connections)
	if c.WantsRetry(addr("192.0.2.1:7")) {
		t.Error("got a Retry, though it would be refused afterwards")
	}
}

func TestRetryFrom(t *testing.T) {
	for _, tc := range []struct {
		name string
		conf Config
		half []string
		want bool
	}{
		{"no attempts", Config{}, nil, false},
		{"always", Config{AlwaysRetry: true}, nil, true},
		{"half of a source's connections", Config{Source: Limits{Connections: 4}}, []string{"192.0.2.1:1", "192.0.2.1:2"}, true},
		{"fewer than that", Config{Source: Limits{Connections: 6}}, []string{"192.0.2.1:1", "192.0.2.1:2"}, false},
		{"half of a site's connections", Config{IPv4SiteBits: 24, Site: Limits{Connections: 4}}, []string{"192.0.2.2:1", "192.0.2.3:2"}, true},
		{"a site without limit", Config{IPv4SiteBits: 24, Site: Limits{Connections: -1}}, []string{"192.0.2.2:1", "192.0.2.3:2"}, false},
		{"negative RetrySource", Config{Source: Limits{Connections: 4}, RetrySource: -1}, []string{"192.0.2.1:1", "192.0.2.1:2"}, false},
		{"beyond the connection rate", Config{Source: Limits{ConnectionRate: 1, ConnectionBurst: 2}}, []string{"192.0.2.1:1", "192.0.2.1:2"}, true},
		{"no room left", Config{Source: Limits{HalfOpen: 2}, RetrySource: -1, RetryHalfOpen: -1}, []string{"192.0.2.1:1", "192.0.2.1:2"}, true},
		{"half of all half-open", Config{Total: Limits{HalfOpen: 4}}, []string{"192.0.2.2:1", "192.0.2.3:2"}, true},
		{"all half-open", Config{Total: Limits{HalfOpen: 2}, RetryHalfOpen: -1}, []string{"192.0.2.2:1", "192.0.2.3:2"}, true},
		{"no limit of connections", Config{Source: Limits{Connections: -1}, Site: Limits{Connections: -1}}, []string{"192.0.2.1:1"}, false},
		{"exempt", Config{AlwaysRetry: true, Overrides: []Override{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Exempt: true}}}, nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.conf.Now = newFakeClock().now
			c := mustNew(t, &tc.conf)
			for _, from := range tc.half {
				wantAdmit(t, c, from, false, PassNew)
			}
			if got := c.WantsRetry(addr("192.0.2.1:9")); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestConnectionRate(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now, Source: Limits{ConnectionRate: 2, ConnectionBurst: 4}})
	admit := func(port int) bool {
		slot, err := c.Admit(netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(port)), true)
		if err == nil {
			slot.Release()
		}
		return err == nil
	}
	count := func(from, n int) (admitted int) {
		for i := range n {
			if admit(from + i) {
				admitted++
			}
		}
		return admitted
	}
	if got := count(1, 10); got != 4 {
		t.Errorf("a burst of %d, want 4", got)
	}
	clock.advance(time.Second)
	if got := count(100, 10); got != 2 {
		t.Errorf("%d after a second, want 2", got)
	}
	clock.advance(time.Hour)
	if got := count(200, 10); got != 4 {
		t.Errorf("a burst of %d after an hour, want 4", got)
	}
	// Attempts are charged when they are established.
	clock.advance(time.Hour)
	for i := range 3 {
		slot := wantAdmit(t, c, fmt.Sprintf("192.0.2.1:%d", 300+i), false, PassNew)
		if !slot.Established() {
			t.Error("no room for one that was admitted")
		}
		slot.Release()
	}
	if got := count(400, 10); got != 1 {
		t.Errorf("%d after 3 of 4 that were half open first, want 1", got)
	}
}

func TestOverrides(t *testing.T) {
	c := mustNew(t, &Config{
		Now:    newFakeClock().now,
		Source: Limits{Connections: 1}, Total: Limits{Connections: 1},
		Overrides: []Override{
			{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Exempt: true},
			{Prefix: netip.MustParsePrefix("192.0.2.128/25"), Limits: Limits{Connections: 2}},
		},
	})
	for i := range 10 {
		wantAdmit(t, c, fmt.Sprintf("192.0.2.1:%d", 1+i), true, PassNew)
	}
	wantAdmit(t, c, "192.0.2.129:1", true, TotalConnections)
	if l, ok := c.sources.overrides.Lookup(netip.MustParseAddr("192.0.2.129")); !ok || l.connections != 2 || l.exempt {
		t.Errorf("the longer prefix has %+v", l)
	}
}

// TestSecondDatagramOfRefused checks that the second datagram of a ClientHello is refused
// like the first one, even if there is room by then: half a ClientHello makes no
// connection. quic-go asks for both datagrams.
func TestSecondDatagramOfRefused(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now, Source: Limits{Connections: 1}})
	a := wantAdmit(t, c, "192.0.2.1:1", true, PassNew)
	wantAdmit(t, c, "192.0.2.1:2", false, Connections)
	a.Release()
	c.conf.AlwaysRetry = true
	if c.WantsRetry(addr("192.0.2.1:2")) {
		t.Error("got a Retry after it was refused")
	}
	wantAdmit(t, c, "192.0.2.1:2", false, Repeated)
	wantAdmit(t, c, "192.0.2.1:3", false, PassNew) // another attempt
	clock.advance(time.Duration(repeatWindow) - 1)
	wantAdmit(t, c, "192.0.2.1:2", false, Repeated)
	clock.advance(1) // the window starts at the refusal, not at the repetition
	wantAdmit(t, c, "192.0.2.1:2", true, PassNew)
}

// TestAdmitDecidesAnew checks that Admit decides each time by the current state, without
// regard to a refusal before.
func TestAdmitDecidesAnew(t *testing.T) {
	c := mustNew(t, &Config{Now: newFakeClock().now, Source: Limits{Connections: 1}})
	a := wantAdmit(t, c, "192.0.2.1:1", true, PassNew)
	if _, err := c.Admit(addr("192.0.2.1:2"), true); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want ErrRefused", err)
	}
	a.Release()
	if _, err := c.Admit(addr("192.0.2.1:2"), true); err != nil {
		t.Error(err)
	}
}

// TestHalfOpenTakeRoom checks that half-open attempts take room from further attempts
// whose address is not validated, but not from those whose address is.
func TestHalfOpenTakeRoom(t *testing.T) {
	c := mustNew(t, &Config{Now: newFakeClock().now, RetrySource: -1, RetryHalfOpen: -1, Source: Limits{Connections: 3}})
	wantAdmit(t, c, "192.0.2.1:1", false, PassNew)
	wantAdmit(t, c, "192.0.2.1:2", true, PassNew)
	if c.WantsRetry(addr("192.0.2.1:3")) {
		t.Error("got a Retry though there is room")
	}
	wantAdmit(t, c, "192.0.2.1:3", false, PassNew)
	if !c.WantsRetry(addr("192.0.2.1:4")) {
		t.Error("got no Retry though there is no room")
	}
	wantAdmit(t, c, "192.0.2.1:4", false, HalfOpen)
	wantAdmit(t, c, "192.0.2.1:5", true, PassNew)
}
