package quota

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/nettest"
)

// wantAdmit admits somebody, or is told why not.
func wantAdmit(t *testing.T, c *Controller, from string, shown bool, want Reason) *Slot {
	t.Helper()
	slot, err := c.admit(addr(from), shown, true)
	var refused *RefusedError
	switch {
	case err == nil && want != PassNew:
		t.Errorf("%s was admitted, want %v", from, want)
	case err != nil && (!errors.As(err, &refused) || !errors.Is(err, ErrRefused) || refused.Reason != want):
		t.Errorf("%s: got %v, want %v", from, err, want)
	}
	return slot
}

// wantLive checks what exists.
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

// TestForgedAddressesTakeNothing: whoever forges an address fills its pool of
// half-open handshakes, and no more: the one to whom it belongs is asked for a
// Retry, and has all its connections.
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
		t.Error("the victim need not show its address, though the pool is full")
	}
	for i := range 5 {
		wantAdmit(t, c, fmt.Sprintf("192.0.2.1:%d", 1+i), true, PassNew)
	}
	wantAdmit(t, c, "192.0.2.1:6", true, Connections)
	if c.WantsRetry(addr("192.0.2.1:7")) {
		t.Error("asked for a Retry, to be refused afterwards")
	}
}

func TestRetryFrom(t *testing.T) {
	for _, tc := range []struct {
		name string
		conf Config
		half []string
		want bool
	}{
		{"quiet", Config{}, nil, false},
		{"always", Config{AlwaysRetry: true}, nil, true},
		{"half of a source's", Config{Source: Limits{Connections: 4}}, []string{"192.0.2.1:1", "192.0.2.1:2"}, true},
		{"fewer than that", Config{Source: Limits{Connections: 6}}, []string{"192.0.2.1:1", "192.0.2.1:2"}, false},
		{"half of a site's", Config{IPv4SiteBits: 24, Site: Limits{Connections: 4}}, []string{"192.0.2.2:1", "192.0.2.3:2"}, true},
		{"a site without limit", Config{IPv4SiteBits: 24, Site: Limits{Connections: -1}}, []string{"192.0.2.2:1", "192.0.2.3:2"}, false},
		{"not if told so", Config{Source: Limits{Connections: 4}, RetrySource: -1}, []string{"192.0.2.1:1", "192.0.2.1:2"}, false},
		{"unless there is no room", Config{Source: Limits{HalfOpen: 2}, RetrySource: -1, RetryHalfOpen: -1}, []string{"192.0.2.1:1", "192.0.2.1:2"}, true},
		{"half of all", Config{Total: Limits{HalfOpen: 4}}, []string{"192.0.2.2:1", "192.0.2.3:2"}, true},
		{"all", Config{Total: Limits{HalfOpen: 2}, RetryHalfOpen: -1}, []string{"192.0.2.2:1", "192.0.2.3:2"}, true},
		{"connections without limit", Config{Source: Limits{Connections: -1}, Site: Limits{Connections: -1}}, []string{"192.0.2.1:1"}, false},
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
	if l, ok := c.overrides.Lookup(netip.MustParseAddr("192.0.2.129")); !ok || l.connections != 2 || l.exempt {
		t.Errorf("the longer prefix has %+v", l)
	}
}

// TestHalfOpenBecomesConnection: by being told, or, at last, by itself.
func TestHalfOpenBecomesConnection(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		c := mustNew(t, &Config{Source: Limits{Connections: 2}})
		a := wantAdmit(t, c, "192.0.2.1:1", false, PassNew)
		b := wantAdmit(t, c, "192.0.2.1:2", false, PassNew)
		wantLive(t, c, 0, 2)
		for range 2 {
			if !a.Established() {
				t.Error("no room for the one that was admitted")
			}
		}
		wantLive(t, c, 1, 1)
		time.Sleep(defaultHandshake + time.Millisecond)
		wantLive(t, c, 2, 0)
		a.Release()
		b.Release()
		wantLive(t, c, 0, 0)
	})
}

// TestNoRoomAtTheEnd: a half-open attempt finds that others with proven addresses
// have taken all there is.
func TestNoRoomAtTheEnd(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		c := mustNew(t, &Config{Source: Limits{Connections: 1}})
		told := make(chan struct{}, 2)
		a := wantAdmit(t, c, "192.0.2.1:1", false, PassNew)
		a.OnEnd(func() { told <- struct{}{} })
		wantAdmit(t, c, "192.0.2.1:3", true, PassNew)
		if a.Established() {
			t.Error("established beyond the quota")
		}
		wantLive(t, c, 1, 1)
		a.OnEnd(func() { told <- struct{}{} }) // too late: at once
		<-told
		a.Release()
		wantLive(t, c, 1, 0)
	})
}

// TestTimeoutWithoutRoom: the same, found by nobody but the timer.
func TestTimeoutWithoutRoom(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		c := mustNew(t, &Config{Source: Limits{Connections: 1}})
		told := make(chan struct{}, 2)
		a := wantAdmit(t, c, "192.0.2.1:1", false, PassNew)
		a.OnEnd(func() { told <- struct{}{} })
		wantAdmit(t, c, "192.0.2.1:3", true, PassNew)
		<-told
		a.Release()
		wantLive(t, c, 1, 0)
	})
}

// TestSecondDatagramOfRefused: quic-go asks again for the second datagram of a
// ClientHello that was refused. It is refused as well, though there is room by
// then: half a ClientHello makes no connection.
func TestSecondDatagramOfRefused(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now, Source: Limits{Connections: 1}})
	a := wantAdmit(t, c, "192.0.2.1:1", true, PassNew)
	wantAdmit(t, c, "192.0.2.1:2", false, Connections)
	a.Release()
	wantAdmit(t, c, "192.0.2.1:2", false, Repeated)
	wantAdmit(t, c, "192.0.2.1:3", false, PassNew) // somebody else
	clock.advance(time.Duration(repeatWindow))
	wantAdmit(t, c, "192.0.2.1:2", true, PassNew)
}

// TestAdmitAsksAnew: whoever counts something else than attempts is told the truth
// each time.
func TestAdmitAsksAnew(t *testing.T) {
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
		t.Error("asked for a Retry in a dry run")
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

// TestNeverBeyondQuota: whatever happens in whatever order, no source, site or all
// have more than they may, a source that has less is let in, and when all is over
// nothing is left.
func TestNeverBeyondQuota(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 0))
		clock := newFakeClock()
		c := mustNew(t, &Config{Now: clock.now,
			Source: Limits{Connections: 4, HalfOpen: 3, ConnectionRate: -1}, Site: Limits{Connections: 10, HalfOpen: 6, ConnectionRate: -1}, Total: Limits{Connections: 25, HalfOpen: 12}})
		m := model{t: t, c: c, slots: make(map[*Slot]bool)}
		for range 3000 {
			clock.advance(time.Duration(rng.IntN(int(repeatWindow))))
			m.step(rng)
			m.check()
		}
		for slot := range m.slots {
			slot.Release()
		}
		wantLive(t, c, 0, 0)
		clock.advance(2 * keep)
		for i := range c.shards {
			if c.shards[i].slots != nil {
				t.Fatalf("seed %d: slots are left", seed)
			}
			for _, s := range c.shards[i].sources {
				if s.live != 0 || s.half != 0 || s.site != nil && s.site.live != 0 {
					t.Fatalf("seed %d: %v is left with %+v", seed, s.key, s.level)
				}
			}
		}
	}
}

// model is what a controller should know.
type model struct {
	t     *testing.T
	c     *Controller
	slots map[*Slot]bool // shown
	port  uint16
}

func (m *model) step(rng *rand.Rand) {
	switch rng.IntN(3) {
	case 0:
		m.admit(netip.AddrFrom16([16]byte{0x20, 1, 5: byte(rng.IntN(3)), 7: byte(rng.IntN(3)), 15: byte(rng.IntN(5))}), rng.IntN(2) == 0)
	case 1:
		for slot := range m.slots {
			if slot.Established() {
				m.slots[slot] = true
			} else {
				slot.Release()
				delete(m.slots, slot)
			}
			return
		}
	default:
		for slot := range m.slots {
			slot.Release()
			delete(m.slots, slot)
			return
		}
	}
}

// admit lets somebody in who follows the rules: it shows its address if asked.
func (m *model) admit(a netip.Addr, shown bool) {
	m.port++
	from := netip.AddrPortFrom(a, m.port)
	shown = shown || m.c.WantsRetry(from)
	source, site, all := m.count(a)
	slot, err := m.c.Admit(from, shown)
	room := source < 4 && site < 10 && all < 25
	if (err == nil) != room {
		m.t.Fatalf("with %d, %d and %d connections: %v", source, site, all, err)
	}
	if err == nil {
		m.slots[slot] = shown
	}
}

// count is how many connections the source of an address has, its site, and all.
func (m *model) count(a netip.Addr) (source, site, all int) {
	b := a.As16()
	for slot, shown := range m.slots {
		if !shown {
			continue
		}
		s := slot.Remote().Addr().As16()
		all++
		if [6]byte(s[:6]) == [6]byte(b[:6]) {
			site++
		}
		if [8]byte(s[:8]) == [8]byte(b[:8]) {
			source++
		}
	}
	return source, site, all
}

func (m *model) check() {
	for slot := range m.slots {
		if source, site, all := m.count(slot.Remote().Addr()); source > 4 || site > 10 || all > 25 {
			m.t.Fatalf("%d, %d, and %d connections, want at most 4, 10, and 25", source, site, all)
		}
	}
	s := m.c.Stats()
	_, _, all := m.count(netip.IPv6Unspecified())
	if s.Connections != all || s.HalfOpen != len(m.slots)-all {
		m.t.Fatalf("counts %d and %d, want %d and %d", s.Connections, s.HalfOpen, all, len(m.slots)-all)
	}
}

// TestParallelUse: the same from many goroutines at once.
func TestParallelUse(t *testing.T) {
	c := mustNew(t, &Config{Source: Limits{Connections: 8, ConnectionRate: -1, AttemptRate: -1}, MaxSources: 4096})
	var live [4]atomic.Int32
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			for i := range 3000 {
				n := rng.IntN(len(live))
				from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), uint16(g*3000+i))
				slot, err := c.Admit(from, true)
				if err != nil {
					continue
				}
				if now := live[n].Add(1); now > 8 {
					t.Errorf("%d connections of one source, want at most 8", now)
				}
				c.WantsRetry(from)
				c.Request(from.Addr())
				live[n].Add(-1)
				slot.Release()
			}
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		defer cancel()
		for i := range 200 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, byte(i), 0}), 24)
			if err := c.Deny(p, time.Minute, ""); err != nil {
				t.Error(err)
			}
			c.Top(3)
			c.Stats()
			c.Remove(DenyList, p)
		}
	})
	for range c.Events(ctx) {
	}
	wg.Wait()
	wantLive(t, c, 0, 0)
}

// TestSourcesAreBounded: strangers come and are forgotten, those with connections
// stay, and whoever finds no room is held to the limits of all.
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

// recorder is an enforcer that remembers.
type recorder struct {
	noEnforcer
	clock  *fakeClock
	turned map[netip.Prefix]time.Time
	listed map[string]time.Time
	asked  int // for packets
}

func newRecorder(clock *fakeClock) *recorder {
	return &recorder{clock: clock, turned: make(map[netip.Prefix]time.Time), listed: make(map[string]time.Time)}
}

// until is when something ends: the zero time if it has.
func (r *recorder) until(ttl time.Duration) time.Time {
	if ttl <= 0 {
		return time.Time{}
	}
	return r.clock.now().Add(ttl)
}

func (r *recorder) allow(p netip.Prefix, ttl time.Duration) {
	r.listed["allow "+p.String()] = r.until(ttl)
}

func (r *recorder) deny(p netip.Prefix, ttl time.Duration) {
	r.listed["deny "+p.String()] = r.until(ttl)
}

func (r *recorder) packets(List, netip.Prefix) uint64 {
	r.asked++
	return 0
}

func (r *recorder) turnAway(p netip.Prefix, ttl time.Duration) uint64 {
	r.turned[p] = r.until(ttl)
	return 0
}

// TestEnforcer: it hears of an excess, not of a quota that is just used up, for a
// short time, and that it is over as soon as it is.
func TestEnforcer(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now, Excess: Drop, Source: Limits{Connections: 1}})
	r := newRecorder(clock)
	c.enforcer = r
	p := netip.MustParsePrefix("192.0.2.1/32")
	a := wantAdmit(t, c, "192.0.2.1:1", true, PassNew)
	if len(r.turned) > 0 {
		t.Error("turned away when the quota was just used up")
	}
	wantAdmit(t, c, "192.0.2.1:2", true, Connections)
	if got, want := r.turned[p].Sub(clock.now()), time.Duration(turnAwayFor); got != want {
		t.Errorf("turned away for %v, want %v", got, want)
	}
	first := r.turned[p]
	clock.advance(time.Duration(turnAwayFor) / 4)
	wantAdmit(t, c, "192.0.2.1:3", true, Connections)
	if r.turned[p] != first {
		t.Error("told again too soon")
	}
	clock.advance(time.Duration(turnAwayFor) / 2)
	wantAdmit(t, c, "192.0.2.1:4", true, Connections)
	if !r.turned[p].After(first) {
		t.Error("not told again in time")
	}
	a.Release()
	if !r.turned[p].IsZero() {
		t.Error("still turned away when there is room")
	}

	if err := c.Deny(netip.MustParsePrefix("10.0.0.0/8"), time.Minute, ""); err != nil {
		t.Fatal(err)
	}
	if got := r.listed["deny 10.0.0.0/8"]; got != clock.now().Add(time.Minute) {
		t.Errorf("denied until %v", got)
	}
	c.Remove(DenyList, netip.MustParsePrefix("10.0.0.0/8"))
	if !r.listed["deny 10.0.0.0/8"].IsZero() {
		t.Error("still denied")
	}
}

func TestEvents(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		c := mustNew(t, &Config{Source: Limits{Connections: 1}})
		ctx, cancel := context.WithCancel(t.Context())
		var got []Event
		done := make(chan struct{})
		go func() {
			defer close(done)
			for e := range c.Events(ctx) {
				got = append(got, e)
			}
		}()
		time.Sleep(time.Second)
		wantAdmit(t, c, "192.0.2.1:1", true, PassNew)
		for i := range 50 {
			wantAdmit(t, c, fmt.Sprintf("192.0.2.1:%d", 2+i), true, Connections)
		}
		time.Sleep(2 * time.Second)
		wantAdmit(t, c, "192.0.2.1:100", true, Connections)
		time.Sleep(time.Second)
		cancel()
		<-done
		if len(got) != 2 {
			t.Fatalf("%d events, want 2", len(got))
		}
		if e := got[1]; e.Source.String() != "192.0.2.1/32" || e.Action != Refuse || e.Reason != Connections || e.Connections != 1 || e.Refused != 51 {
			t.Errorf("got %+v", e)
		}
		if top := c.Top(1); len(top) != 1 || top[0].Refused != 51 || top[0].Connections != 1 || top[0].Admitted != 1 {
			t.Errorf("top is %+v", top)
		}
	})
}
