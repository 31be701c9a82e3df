package quota

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestNeverBeyondQuota checks random sequences of events: no source, no site, and not all
// sources together exceed their limits, a source with room is let in, and at the end
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
		for i := range c.sources.shards {
			if c.sources.shards[i].slots != nil {
				t.Fatalf("seed %d: slots are left", seed)
			}
			for _, s := range c.sources.shards[i].sources {
				if !s.empty() || s.site != nil && !s.site.empty() {
					t.Fatalf("seed %d: %v is left with %+v", seed, s.key, s.level)
				}
			}
		}
	}
}

// model is a simple model of a controller.
type model struct {
	t     *testing.T
	c     *Controller
	slots map[*Slot]bool // whether the address is validated
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

// admit admits a connection of a good client, which answers a Retry.
func (m *model) admit(a netip.Addr, validated bool) {
	m.port++
	from := netip.AddrPortFrom(a, m.port)
	validated = validated || m.c.WantsRetry(from)
	source, site, all := m.count(a)
	slot, err := m.c.Admit(from, validated)
	room := source < 4 && site < 10 && all < 25
	if (err == nil) != room {
		m.t.Fatalf("with %d, %d and %d connections: %v", source, site, all, err)
	}
	if err == nil {
		m.slots[slot] = validated
	}
}

// count returns the numbers of connections of an address's source, of its site, and of all
// sources.
func (m *model) count(a netip.Addr) (source, site, all int) {
	b := a.As16()
	for slot, validated := range m.slots {
		if !validated {
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

// TestParallelUse checks the limit of a source with many goroutines at the same time.
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
