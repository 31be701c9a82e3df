package cid

import (
	"hash/maphash"
	"math"
	"sync/atomic"
	"time"
)

// shards is the number of shards of a [MemoryStore]. Get takes the read lock of one shard.
const shards = 256

// defaultMaxEntries is the default of MemoryConfig.MaxEntries.
const defaultMaxEntries = 4 << 20

// MemoryConfig configures a [MemoryStore]. The zero value works.
type MemoryConfig struct {
	// MaxEntries bounds the IDs that are stored at once, to at most 2^31 - 1.
	// 0 means 4 194 304. A negative number means none.
	MaxEntries int
	// Now returns the current time. nil means time.Now.
	Now func() time.Time
}

// MemoryStore is a [Store] in memory, the default of relays. It consists of 256 shards, each
// with a lock. Get does not allocate, and waits at most for a Put or Delete in one shard. An
// ID of 12 bytes takes less than 40 bytes if the store has ten or more IDs of the same leg.
// IDs expire up to a tenth of a second early.
type MemoryStore struct {
	shards [shards]shard // first, so that each is in two lines of the processor's cache
	now    func() tick
	max    int64
	count  atomic.Int64
	swept  atomic.Int64 // tick of the last sweep of the full store
	seed   maphash.Seed // secret, because attackers may choose IDs
	legs   legTable
}

// tick is a time, in tenths of a second since the store was made. The largest is 13 years.
type tick uint32

const (
	ticksPerSecond = 10
	tickTime       = time.Second / ticksPerSecond
)

// after returns the tick at a time after the store was made, rounded down.
func after(d time.Duration) tick {
	return tick(min(max(d/tickTime, 0), math.MaxUint32))
}

// add returns the tick a time after t, which is rounded up.
func (t tick) add(d time.Duration) tick {
	n := uint64(t) + uint64(after(d))
	if d > 0 && d%tickTime > 0 {
		n++
	}
	return tick(min(n, math.MaxUint32))
}

var _ Store = (*MemoryStore)(nil)

// NewMemoryStore returns an empty store. cfg may be nil. The caller should call
// [MemoryStore.Expire] from time to time, to free the memory of expired IDs.
func NewMemoryStore(cfg *MemoryConfig) *MemoryStore {
	if cfg == nil {
		cfg = &MemoryConfig{}
	}
	s := &MemoryStore{max: int64(min(cfg.MaxEntries, math.MaxInt32)), seed: maphash.MakeSeed()}
	s.now = clock(cfg.Now)
	s.swept.Store(-ticksPerSecond)
	if s.max == 0 {
		s.max = defaultMaxEntries
	}
	s.legs.init()
	return s
}

// clock returns a function that returns the time since now. nil means time.Now.
func clock(now func() time.Time) func() tick {
	if now == nil {
		start := time.Now()
		return func() tick { return after(time.Since(start)) }
	}
	start := now()
	return func() tick { return after(now().Sub(start)) }
}

// locate returns the hash of an ID, and its shard.
func (s *MemoryStore) locate(id ID) (uint64, *shard) {
	h := maphash.Bytes(s.seed, id.b[:id.n])
	return h, &s.shards[h%shards]
}

// Put implements [Store]. If the store is full, Put removes the expired IDs first, at most
// once a second.
func (s *MemoryStore) Put(id ID, a Association, ttl time.Duration) error {
	now := s.now()
	err := s.put(id, a, now, ttl)
	if err == ErrFull && s.maySweep(now) && s.Expire() > 0 {
		err = s.put(id, a, now, ttl)
	}
	return err
}

func (s *MemoryStore) put(id ID, a Association, now tick, ttl time.Duration) error {
	h, sh := s.locate(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, ok := sh.get(h, id)
	if ok {
		old := s.legs.at(e.leg)
		if old.owner != a.Owner && e.expires > now {
			return ErrConflict
		}
		if *old != legOf(&a) {
			s.legs.release(e.leg)
			e.leg = s.legs.acquire(legOf(&a))
		}
	} else {
		if s.count.Add(1) > s.max {
			s.count.Add(-1)
			return ErrFull
		}
		e.leg = s.legs.acquire(legOf(&a))
	}
	e.low, e.expires = uint32(a.Counter), now.add(ttl)
	sh.set(s.seed, h, id, e)
	return nil
}

// maySweep says whether the last sweep of the full store was at least a second ago, and
// notes that there is one now.
func (s *MemoryStore) maySweep(now tick) bool {
	last := s.swept.Load()
	return int64(now)-last >= ticksPerSecond && s.swept.CompareAndSwap(last, int64(now))
}

// Get implements [Store].
func (s *MemoryStore) Get(id ID) (Association, bool) {
	h, sh := s.locate(id)
	sh.mu.RLock()
	e, ok := sh.get(h, id)
	var l storedLeg
	if ok {
		l = *s.legs.at(e.leg)
	}
	sh.mu.RUnlock()
	if !ok || e.expires <= s.now() {
		return Association{}, false
	}
	return l.association(e.low), true
}

// Delete implements [Store].
func (s *MemoryStore) Delete(id ID, owner Owner) {
	h, sh := s.locate(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, ok := sh.get(h, id)
	if !ok || s.legs.at(e.leg).owner != owner {
		return
	}
	sh.remove(h, id)
	s.legs.release(e.leg)
	s.count.Add(-1)
}

// Len returns how many IDs are stored, including expired ones that have not been removed.
func (s *MemoryStore) Len() int { return int(s.count.Load()) }

// Cap returns how many IDs may be stored at once.
func (s *MemoryStore) Cap() int { return int(s.max) }

// Expire removes the expired IDs, and returns how many there were.
func (s *MemoryStore) Expire() int {
	now := s.now()
	n := 0
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		n += sh.expire(s.seed, func(e *entry) bool {
			if e.expires > now {
				return false
			}
			s.legs.release(e.leg)
			return true
		})
		sh.mu.Unlock()
	}
	s.count.Add(int64(-n))
	return n
}
