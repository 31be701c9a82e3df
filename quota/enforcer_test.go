package quota

import (
	"net/netip"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/udp"
)

// recorder is an enforcer that records calls.
type recorder struct {
	noEnforcer
	clock  *fakeClock
	turned map[netip.Prefix]time.Time
	listed map[string]time.Time
	asked  int // calls of packets
	ports  map[uint16]int
}

func newRecorder(clock *fakeClock) *recorder {
	return &recorder{clock: clock, turned: make(map[netip.Prefix]time.Time), listed: make(map[string]time.Time), ports: make(map[uint16]int)}
}

// until returns the time of an end, or the zero time for a ttl of 0.
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

func (r *recorder) guard(port uint16, _ int) { r.ports[port]++ }
func (r *recorder) unguard(port uint16)      { r.ports[port]-- }

func (r *recorder) turnAway(p netip.Prefix, ttl time.Duration) uint64 {
	r.turned[p] = r.until(ttl)
	return 0
}

// TestEnforcer checks that the enforcer turns a source away for a short time when the
// source exceeds its quota, not when it has just used it up, and that this ends as soon as
// there is room. It also checks that the enforcer gets the entries of the lists.
func TestEnforcer(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now, Excess: Drop, Source: Limits{Connections: 1}})
	r := newRecorder(clock)
	c.enforcement.enforcer = r
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
		t.Error("updated again too soon")
	}
	clock.advance(time.Duration(turnAwayFor) / 2)
	wantAdmit(t, c, "192.0.2.1:4", true, Connections)
	if !r.turned[p].After(first) {
		t.Error("not updated again in time")
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

// TestRefusedAreNotTurnedAway checks that the enforcer, which sends no answers, turns no
// source away if Excess is Refuse.
func TestRefusedAreNotTurnedAway(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now, Source: Limits{Connections: 1}})
	r := newRecorder(clock)
	c.enforcement.enforcer = r
	wantAdmit(t, c, "192.0.2.1:1", true, PassNew)
	wantAdmit(t, c, "192.0.2.1:2", true, Connections)
	if len(r.turned) > 0 {
		t.Errorf("turned away: %v", r.turned)
	}
}

// TestPortIsGuardedWhileOpen checks that the enforcer guards the port of a conn once, until
// the conn is closed.
func TestPortIsGuardedWhileOpen(t *testing.T) {
	c := mustNew(t, nil)
	r := newRecorder(newFakeClock())
	c.enforcement.enforcer = r
	below := loopback(t)
	conn, port := c.PacketConn(below, 4), udp.AddrPort(below.LocalAddr()).Port()
	if r.ports[port] != 1 {
		t.Errorf("guarded %d times, want once", r.ports[port])
	}
	for range 2 {
		conn.Close()
		if r.ports[port] != 0 {
			t.Errorf("guarded %d times when it was closed, want none", r.ports[port])
		}
	}
}

// TestTurnedAwayForConnectionRate checks that a source beyond its connection rate is turned
// away until the rate has room again, and that nothing happens in a dry run.
func TestTurnedAwayForConnectionRate(t *testing.T) {
	clock := newFakeClock()
	for _, dry := range []bool{false, true} {
		c := mustNew(t, &Config{Now: clock.now, Excess: Drop, DryRun: dry, Source: Limits{ConnectionRate: 10, ConnectionBurst: 1}})
		r := newRecorder(clock)
		c.enforcement.enforcer = r
		for range 2 {
			if slot, err := c.Admit(addr("192.0.2.1:1"), true); err == nil {
				slot.Release()
			}
		}
		until, turned := r.turned[netip.MustParsePrefix("192.0.2.1/32")]
		if turned == dry || turned && until.Sub(clock.now()) != 100*time.Millisecond {
			t.Errorf("dry run %v: turned away: %v, for %v; want a tenth of a second, or in a dry run nothing", dry, turned, until.Sub(clock.now()))
		}
	}
}
