package cid_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/cid/storetest"
	"github.com/quicway/quicway/internal/test/nettest"
)

func TestMemoryStore(t *testing.T) {
	storetest.Run(t, func(_ *testing.T, now func() time.Time, max int) (cid.Store, bool) {
		return cid.NewMemoryStore(&cid.MemoryConfig{MaxEntries: max, Now: now}), true
	})
}

func TestMemoryStoreExpire(t *testing.T) {
	now := time.Unix(1, 0)
	s := cid.NewMemoryStore(&cid.MemoryConfig{Now: func() time.Time { return now }})
	key := cid.NewKey()
	for counter := range uint64(1000) {
		ttl := time.Minute
		if counter%2 == 0 {
			ttl = time.Second
		}
		if err := s.Put(key.ID(cid.Peer, counter), cid.Association{}, ttl); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.Expire(); n != 0 || s.Len() != 1000 {
		t.Errorf("%d expired at once, %d left", n, s.Len())
	}
	now = now.Add(time.Second)
	if n := s.Expire(); n != 500 || s.Len() != 500 {
		t.Errorf("%d expired, %d left, want 500 and 500", n, s.Len())
	}
}

func TestMemoryStoreGetDoesNotAllocate(t *testing.T) {
	s := cid.NewMemoryStore(nil)
	id := cid.NewKey().ID(cid.Peer, 0)
	if err := s.Put(id, cid.Association{}, time.Minute); err != nil {
		t.Fatal(err)
	}
	b := id.Bytes()
	if n := testing.AllocsPerRun(100, func() {
		id, err := cid.IDFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := s.Get(id); !ok {
			t.Fatal("not found")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestMemoryStoreClockThatIsSet checks that setting the wall clock neither expires an ID nor keeps
// it alive.
func TestMemoryStoreClockThatIsSet(t *testing.T) {
	for _, by := range []time.Duration{-time.Hour, time.Hour} {
		began := time.Now()
		now := began
		s := cid.NewMemoryStore(&cid.MemoryConfig{Now: func() time.Time { return now }})
		id := cid.NewKey().ID(cid.Peer, 0)
		if err := s.Put(id, cid.Association{}, time.Minute); err != nil {
			t.Fatal(err)
		}
		now = nettest.SetClock(began.Add(time.Second), by)
		if _, ok := s.Get(id); !ok || s.Expire() != 0 {
			t.Errorf("clock set by %v: the ID has expired after a second", by)
		}
		now = nettest.SetClock(began.Add(time.Minute), by)
		if _, ok := s.Get(id); ok || s.Expire() != 1 {
			t.Errorf("clock set by %v: the ID is there after a minute", by)
		}
	}
}

// TestMemoryStoreLikeMap puts, gets, deletes and expires IDs at random, and checks that the
// store does what a map does, while its tables grow and shrink, and slots and legs are used
// again.
func TestMemoryStoreLikeMap(t *testing.T) {
	now := time.Unix(1, 0)
	s := cid.NewMemoryStore(&cid.MemoryConfig{Now: func() time.Time { return now }})
	model := make(map[cid.ID]cid.Association)
	r := rand.New(rand.NewPCG(1, 2))
	const most = 40_000
	ids := make([]cid.ID, most)
	for i := range ids {
		ids[i] = cid.NewKey().ID(cid.Peer, 0)
		if i%100 == 0 {
			ids[i], _ = cid.IDFrom(append(ids[i].Bytes(), 1))
		}
	}
	for phase := range 6 {
		for range 3 * most {
			id := ids[r.IntN(most)]
			if a, ok := model[id]; ok && r.IntN(2+phase%2) == 0 {
				s.Delete(id, a.Owner)
				delete(model, id)
				continue
			}
			leg := r.Uint64N(500)
			a := cid.Association{Owner: cid.Owner{1}, Session: leg, Leg: uint8(leg % 2), Counter: r.Uint64() >> r.IntN(64)}
			if err := s.Put(id, a, time.Minute); err != nil {
				t.Fatal(err)
			}
			model[id] = a
		}
		if len(model) != s.Len() {
			t.Fatalf("phase %d: %d IDs, want %d", phase, s.Len(), len(model))
		}
		for _, id := range ids {
			want, ok := model[id]
			if got, found := s.Get(id); found != ok || got != want {
				t.Fatalf("phase %d: %v leads to %+v, %v, want %+v, %v", phase, id, got, found, want, ok)
			}
		}
		if phase%2 == 1 {
			now = now.Add(time.Minute)
			if n := s.Expire(); n != len(model) || s.Len() != 0 {
				t.Fatalf("%d expired, %d left, want %d and 0", n, s.Len(), len(model))
			}
			clear(model)
		}
	}
}
