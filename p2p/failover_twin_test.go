package p2p

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// twin configures a host to know the first relay by a second name.
func twin(c *Config) {
	r := c.Relay
	r.Addr = "r.test:4433"
	c.Relays = append([]Relay{r}, c.Relays...)
	c.lookup = func(context.Context, string, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddrPort(relayAddr).Addr()}, nil
	}
}

// legsAt counts the legs of a connection at a relay.
func legsAt(c *Conn, i int) (n int) {
	for _, g := range c.link.legs() {
		if g.client.address().String() == fleetAddrs[i] {
			n++
		}
	}
	return n
}

// TestOneRelayUnderTwoNames checks that a relay is no standby for itself, and that a
// connection keeps its leg there.
func TestOneRelayUnderTwoNames(t *testing.T) {
	t.Run("alone", func(t *testing.T) {
		runFleet(t, 1, func(f *fleet) {
			x, y := f.host(twin), f.host(twin)
			time.Sleep(time.Second)
			a, b := f.connect(x, y)
			pulse := f.beat(a, b)
			time.Sleep(time.Second)
			pulse.reset()
			time.Sleep(90 * time.Second)
			if pause := pulse.reset(); pause > 200*time.Millisecond {
				f.Errorf("silent for %v", pause)
			}
			if x, y := legsAt(a, 0), legsAt(b, 0); x != 1 || y != 1 {
				f.Errorf("%d and %d legs at the relay", x, y)
			}
			f.turns(0, a, b)
			f.end(pulse)
		})
	})
	t.Run("and another relay", func(t *testing.T) {
		runFleet(t, 2, func(f *fleet) {
			f.link(1, 0, nettest.Conditions{Delay: 30 * time.Millisecond})
			several := func(c *Config) { f.several(c); twin(c) }
			x, y := f.host(several), f.host(several)
			time.Sleep(time.Second)
			a, b := f.connect(x, y)
			f.standby(1)
			f.cut(0, 0)
			f.exchange(a, b, 10_000)
			f.turned(1, died, a, b)
		})
	})
}

// TestOneLegAtEachRelay checks that the search for a standby and the last resort, which look
// at the same time, leave one leg at a relay.
func TestOneLegAtEachRelay(t *testing.T) {
	for name, resortFirst := range map[string]bool{"the last resort is first": true, "the last resort is last": false} {
		t.Run(name, func(t *testing.T) {
			runFleet(t, 2, func(f *fleet) {
				none := func(c *Config) { f.several(c); c.Standby = NoStandby } // the test's failover is the only one
				a, b := f.connect(f.host(none), f.host(none))
				g, now := newFailover(a), time.Now()
				other := 1 // which of the two relays carries is left to chance
				if a.link.leg().client.relay.key() == f.at(1).key() {
					other = 0
				}
				opened, found := a.openLeg(f.at(other), "", nil), a.openLeg(f.at(other), "", nil)
				if opened.err != nil || found.err != nil {
					f.Fatal(opened.err, found.err)
				}
				g.resort.open = 1
				if resortFirst {
					g.foundRelay(found, now)
				}
				g.registered(opened, now)
				if !resortFirst {
					g.foundRelay(found, now)
				}
				if n := legsAt(a, other); n != 1 || g.next.leg != a.link.legs()[1] || len(g.former) != 0 {
					f.Errorf("%d legs at the relay, %d of them former ones", n, len(g.former))
				}
				if kept := a.link.legs()[1].client.legs.all(); len(kept) != 1 || kept[0] != g.next.leg {
					f.Error("another leg is kept registered")
				}
				f.alive(a, b)
			})
		})
	}
}

// TestDeadStandbyIsNotReady checks that a relay which does not answer stays unanswered from
// one question to the next.
func TestDeadStandbyIsNotReady(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		a, b := f.pair()
		pulse := f.beat(a, b)
		client := a.link.routes.Load().others[0].client
		f.cut(1, 0)
		noticed := false
		for range 400 {
			time.Sleep(20 * time.Millisecond)
			d := client.unanswered(time.Now())
			ready := client.present() != nil && d < standbyPatience
			if noticed && ready {
				f.Fatalf("unanswered for %v only", d)
			}
			noticed = noticed || !ready
		}
		f.mend(1)
		time.Sleep(10 * time.Second)
		if client.present() == nil || client.unanswered(time.Now()) != 0 {
			f.Error("the relay does not answer any more")
		}
		f.end(pulse)
	})
}

// TestSparesAreLimited checks that SPARE counts as a proposal, and that a connection tries one
// relay at a time that is not its own.
func TestSparesAreLimited(t *testing.T) {
	runFleet(t, 1, func(f *fleet) {
		a, b := f.connect(f.host(nil), f.host(nil))
		g := newFailover(b)
		now := time.Now()
		for i := range 20 {
			r := f.at(0)
			r.Addr = fmt.Sprintf("192.0.2.2:%d", 4433+i)
			if _, err := g.handleFrame(proposal{number: uint64(i + 1), relay: r}.frame(frameSpare), now); err != nil {
				f.Fatal(err)
			}
		}
		if last := g.resort.used[len(g.resort.used)-1].number; last != proposalBurst || len(g.resort.used) != maxUsed {
			f.Errorf("%d relays, the last is %d", len(g.resort.used), last)
		}
		g.openUsed()
		if g.resort.open != 1 {
			f.Errorf("%d relays at a time", g.resort.open)
		}
		f.alive(a, b)
	})
}
