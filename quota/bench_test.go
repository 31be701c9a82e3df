package quota

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"testing"

	"github.com/quicway/quicway/internal/test/quotatest"
	"github.com/quicway/quicway/internal/wire"
)

const million = 1 << 20

// nth returns the address of the source with a number.
func nth(i uint32) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1000)
}

// crowd makes a controller that remembers n sources.
func crowd(tb testing.TB, conf *Config, n int) *Controller {
	tb.Helper()
	conf.MaxSources = 2 * million
	conf.Source = conf.Source.or(Limits{Connections: 5, ConnectionRate: -1, AttemptRate: -1})
	c := mustNew(tb, conf)
	for i := range uint32(n) {
		c.WantsRetry(nth(i))
	}
	return c
}

var crowds = sync.OnceValue(func() *Controller { return crowd(&testing.B{}, &Config{Excess: Drop}, million) })

// decisions are packets and the filter's decisions about them.
var decisions = []struct {
	name string
	d    quotatest.Datagram
	from func(i uint32) netip.AddrPort
	want Reason
}{
	{"established", quotatest.Datagram{Type: wire.OneRTT, Size: 1200}, nth, PassOther},
	{"continuing", quotatest.Datagram{Type: wire.Initial, ID: 4, Size: 1280}, nth, PassContinuing},
	{"denied", quotatest.Datagram{Type: wire.OneRTT, Size: 1200}, denied, Denied},
	{"new", quotatest.Datagram{Type: wire.Initial, ID: 12, Size: 1280}, nth, PassNew},
	{"over-quota", quotatest.Datagram{Type: wire.Initial, ID: 12, Size: 1280}, func(uint32) netip.AddrPort { return addr("192.0.2.1:1000") }, Connections},
}

func denied(uint32) netip.AddrPort { return addr("203.0.113.1:1000") }

// arrange makes the state that the decisions need.
func arrange(tb testing.TB, c *Controller) (done func()) {
	tb.Helper()
	if err := c.Deny(netip.MustParsePrefix("203.0.113.0/24"), 0, ""); err != nil {
		tb.Fatal(err)
	}
	var slots []*Slot
	for i := range 5 {
		slot, err := c.Admit(netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(i)), true)
		if err != nil {
			tb.Fatal(err)
		}
		slots = append(slots, slot)
	}
	return func() {
		for _, slot := range slots {
			slot.Release()
		}
		c.Remove(DenyList, netip.MustParsePrefix("203.0.113.0/24"))
	}
}

// BenchmarkDecide measures the filter's decision about a packet, with one source, and
// from a random one of 1 048 576 sources.
func BenchmarkDecide(b *testing.B) {
	for _, size := range []struct {
		name string
		n    uint32
		c    func() *Controller
	}{
		{"1", 1, func() *Controller { return crowd(b, &Config{Excess: Drop}, 1) }},
		{"1M", million, crowds},
	} {
		for _, tc := range decisions {
			b.Run("sources="+size.name+"/"+tc.name, func(b *testing.B) {
				c := size.c()
				defer arrange(b, c)()
				filter, packet := &filter{c: c, idLen: 4}, tc.d.Build()
				rng := rand.New(rand.NewPCG(1, 2))
				now := c.clock.now()
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					if tc.want == PassNew { // each is another attempt
						binary.BigEndian.PutUint64(packet[6:], uint64(i))
					}
					if _, why := filter.decide(tc.from(rng.Uint32N(size.n)), packet, now); why != tc.want && why != PassFlow {
						b.Fatalf("got %v, want %v", why, tc.want)
					}
				}
			})
		}
	}
}

// BenchmarkWantsRetry measures the decision whether an attempt gets a Retry.
func BenchmarkWantsRetry(b *testing.B) {
	c := crowds()
	b.Run("serial", func(b *testing.B) {
		rng := rand.New(rand.NewPCG(1, 2))
		b.ReportAllocs()
		for b.Loop() {
			c.WantsRetry(nth(rng.Uint32N(million)))
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			rng := rand.New(rand.NewPCG(rand.Uint64(), 2))
			for pb.Next() {
				c.WantsRetry(nth(rng.Uint32N(million)))
			}
		})
	})
}

// BenchmarkAdmit measures admitting a connection and releasing its slot.
func BenchmarkAdmit(b *testing.B) {
	c := crowds()
	rng := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		slot, err := c.Admit(nth(rng.Uint32N(million)), true)
		if err != nil {
			b.Fatal(err)
		}
		slot.Release()
	}
}

// BenchmarkRequest measures the decision about a request.
func BenchmarkRequest(b *testing.B) {
	c := crowds()
	rng := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		c.Request(nth(rng.Uint32N(million)).Addr())
	}
}

// BenchmarkSources measures the memory of each of 1 048 576 sources.
func BenchmarkSources(b *testing.B) {
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		c := crowd(b, &Config{}, million)
		runtime.GC()
		runtime.ReadMemStats(&after)
		if s := c.Stats(); s.Sources != million {
			b.Fatalf("%d sources", s.Sources)
		}
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/million, "B/source")
	}
}

// TestDecisionsDoNotAllocate checks that decisions about packets, Retries, and requests
// of known sources do not allocate memory.
func TestDecisionsDoNotAllocate(t *testing.T) {
	c := crowd(t, &Config{Excess: Drop, Source: Limits{PacketRate: 1e9}}, 1)
	defer arrange(t, c)()
	f := &filter{c: c, idLen: 4}
	from := nth(0)
	for _, tc := range decisions {
		packet := tc.d.Build()
		if n := testing.AllocsPerRun(100, func() { f.decide(tc.from(0), packet, c.clock.now()) }); n != 0 {
			t.Errorf("%s: %v allocations", tc.name, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() { c.WantsRetry(from); c.Request(from.Addr()) }); n != 0 {
		t.Errorf("%v allocations for an address and a request", n)
	}
}
