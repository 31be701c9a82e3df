package cid_test

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quicway/quicway/cid"
)

// lookups are the kinds of store that are compared, filled with the same IDs.
type lookups struct {
	ids    []cid.ID
	memory *cid.MemoryStore
	mu     sync.RWMutex
	locked map[cid.ID]cid.Association
	synced sync.Map
}

// benchIDs is how many IDs the stores have, and benchWindow how many of them are of the same leg.
const (
	benchIDs    = 1 << 20
	benchWindow = cid.Behind + cid.Ahead
)

// benchAssociation returns the association of ID i.
func benchAssociation(i uint64) cid.Association {
	leg := i / benchWindow
	return cid.Association{Owner: cid.Owner{1, byte(leg), byte(leg >> 8), byte(leg >> 16)}, Session: leg / 2, Leg: uint8(leg % 2), Counter: i % benchWindow}
}

var filled = sync.OnceValue(func() *lookups {
	l := &lookups{memory: cid.NewMemoryStore(nil), locked: make(map[cid.ID]cid.Association)}
	deriver := cid.NewKey().Deriver(cid.Peer)
	for i := range uint64(benchIDs) {
		id, a := deriver.ID(i), benchAssociation(i)
		l.ids = append(l.ids, id)
		l.locked[id] = a
		l.synced.Store(id, a)
		if err := l.memory.Put(id, a, 24*time.Hour); err != nil {
			panic(err)
		}
	}
	return l
})

// access looks up or puts ID i in one kind of store.
type access struct {
	name string
	get  func(i int) bool
	put  func(i int) bool
}

func (l *lookups) kinds() []access {
	return []access{
		{"MemoryStore", func(i int) bool {
			_, ok := l.memory.Get(l.ids[i])
			return ok
		}, func(i int) bool { return l.memory.Put(l.ids[i], benchAssociation(uint64(i)), 24*time.Hour) == nil }},
		{"RWMutex", func(i int) bool {
			l.mu.RLock()
			defer l.mu.RUnlock()
			_, ok := l.locked[l.ids[i]]
			return ok
		}, func(i int) bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.locked[l.ids[i]] = benchAssociation(uint64(i))
			return true
		}},
		{"sync.Map", func(i int) bool {
			_, ok := l.synced.Load(l.ids[i])
			return ok
		}, func(i int) bool {
			l.synced.Store(l.ids[i], benchAssociation(uint64(i)))
			return true
		}},
	}
}

// benchTurn is how many times a store is accessed before it is another one's turn.
const benchTurn = 1 << 12

// turn accesses a store benchTurn times, with IDs far from each other, beginning with that of
// number from. Every writes-th access puts an ID; 0: none does.
func (a *access) turn(b *testing.B, from, writes int) {
	for k := range benchTurn {
		do := a.get
		if writes > 0 && k%writes == 0 {
			do = a.put
		}
		if !do((from + k*7919) % benchIDs) {
			b.Error("the ID was not found, or not put")
			return
		}
	}
}

// turns lets each of cpus goroutines access a store, and returns the time of an access.
func (a *access) turns(b *testing.B, round, cpus, writes int) float64 {
	var wg sync.WaitGroup
	begin := time.Now()
	for cpu := range cpus {
		wg.Go(func() { a.turn(b, (round*cpus+cpu)*104_729, writes) })
	}
	wg.Wait()
	return float64(time.Since(begin).Nanoseconds()) / float64(cpus*benchTurn)
}

// BenchmarkGet looks up one of 1 048 576 IDs in a MemoryStore, and for comparison in a map
// with one lock, and in a sync.Map: on one CPU (serial), on all CPUs (parallel), and on all
// CPUs while every 16th access puts an ID again (refreshed). The stores take turns. One op is
// a turn of each. It reports the median time of an access, and the median of what it is of that
// of the map in the same round.
func BenchmarkGet(b *testing.B) {
	kinds := filled().kinds()
	for _, mode := range []struct {
		name         string
		cpus, writes int
	}{{"serial", 1, 0}, {"parallel", runtime.GOMAXPROCS(0), 0}, {"refreshed", runtime.GOMAXPROCS(0), 16}} {
		b.Run(mode.name, func(b *testing.B) {
			times, ratios := make([][]float64, len(kinds)), make([][]float64, len(kinds))
			for round := 0; b.Loop(); round++ {
				for k := range kinds {
					at := (round + k) % len(kinds)
					times[at] = append(times[at], kinds[at].turns(b, round, mode.cpus, mode.writes))
				}
				for k := range kinds {
					ratios[k] = append(ratios[k], times[k][round]/times[1][round])
				}
			}
			for k := range kinds {
				b.ReportMetric(median(times[k]), "ns-"+kinds[k].name)
				b.ReportMetric(median(ratios[k]), "of-map-"+kinds[k].name)
			}
		})
	}
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// BenchmarkMemoryStoreSize fills a store with the IDs of legs with 24 IDs each. It reports
// the memory of an ID, the mean and the most of sixteen sizes from 524 288 to 1 048 576 IDs,
// because the store has more room than it needs just after it has grown.
func BenchmarkMemoryStoreSize(b *testing.B) {
	for range b.N {
		deriver := cid.NewKey().Deriver(cid.Peer)
		before := heap()
		s := cid.NewMemoryStore(nil)
		var sum, most float64
		const sizes = 16
		for i := range uint64(benchIDs) {
			if err := s.Put(deriver.ID(i), benchAssociation(i), time.Hour); err != nil {
				b.Fatal(err)
			}
			if n := i + 1; n > benchIDs/2 && n%(benchIDs/2/sizes) == 0 {
				size := float64(heap()-before) / float64(n)
				sum, most = sum+size, max(most, size)
			}
		}
		b.ReportMetric(sum/sizes, "B/ID")
		b.ReportMetric(most, "B/ID-most")
		runtime.KeepAlive(s)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkMemoryStorePut adds IDs.
func BenchmarkMemoryStorePut(b *testing.B) {
	deriver := cid.NewKey().Deriver(cid.Peer)
	s := cid.NewMemoryStore(&cid.MemoryConfig{MaxEntries: 1 << 30})
	for i := uint64(0); b.Loop(); i++ {
		if err := s.Put(deriver.ID(i), benchAssociation(i), time.Hour); err != nil {
			b.Fatal(err)
		}
	}
}
