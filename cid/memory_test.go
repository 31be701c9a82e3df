package cid_test

import (
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
