package cid_test

import (
	"runtime"
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

var filled = sync.OnceValue(func() *lookups {
	const n = 1 << 20
	l := &lookups{memory: cid.NewMemoryStore(nil), locked: make(map[cid.ID]cid.Association)}
	deriver := cid.NewKey().Deriver(cid.Peer)
	for i := range uint64(n) {
		id, a := deriver.ID(i), cid.Association{Session: i}
		l.ids = append(l.ids, id)
		if err := l.memory.Put(id, a, 24*time.Hour); err != nil {
			panic(err)
		}
		l.locked[id] = a
		l.synced.Store(id, a)
	}
	return l
})

// BenchmarkGet looks up one of 1 048 576 IDs in a MemoryStore, and for comparison in a map
// with one lock, and in a sync.Map: on one CPU (serial), on all CPUs (parallel), and on all
// CPUs while every 16th access puts an ID again (refreshed).
func BenchmarkGet(b *testing.B) {
	l := filled()
	for _, store := range []struct {
		name string
		get  func(cid.ID) bool
		put  func(cid.ID)
	}{
		{"MemoryStore", func(id cid.ID) bool {
			_, ok := l.memory.Get(id)
			return ok
		}, func(id cid.ID) {
			if err := l.memory.Put(id, cid.Association{}, 24*time.Hour); err != nil {
				b.Error(err)
			}
		}},
		{"RWMutex", func(id cid.ID) bool {
			l.mu.RLock()
			defer l.mu.RUnlock()
			_, ok := l.locked[id]
			return ok
		}, func(id cid.ID) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.locked[id] = cid.Association{}
		}},
		{"sync.Map", func(id cid.ID) bool {
			_, ok := l.synced.Load(id)
			return ok
		}, func(id cid.ID) { l.synced.Store(id, cid.Association{}) }},
	} {
		b.Run(store.name+"/serial", func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i += 7919 {
				if !store.get(l.ids[i&(len(l.ids)-1)]) {
					b.Fatal("not found")
				}
			}
		})
		b.Run(store.name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i += 7919 {
					if !store.get(l.ids[i&(len(l.ids)-1)]) {
						b.Error("not found")
						return
					}
				}
			})
		})
		b.Run(store.name+"/refreshed", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i += 7919 {
					id := l.ids[i&(len(l.ids)-1)]
					if i%16 == 0 {
						store.put(id)
					} else if !store.get(id) {
						b.Error("not found")
						return
					}
				}
			})
		})
	}
}

// BenchmarkMemoryStorePut adds IDs, and reports the memory per ID.
func BenchmarkMemoryStorePut(b *testing.B) {
	deriver := cid.NewKey().Deriver(cid.Peer)
	s := cid.NewMemoryStore(&cid.MemoryConfig{MaxEntries: 1 << 30})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := uint64(0); b.Loop(); i++ {
		if err := s.Put(deriver.ID(i), cid.Association{}, time.Hour); err != nil {
			b.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(s.Len()), "B/ID")
}
