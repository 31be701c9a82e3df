package cid

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/internal/monotime"
)

// shards is the number of shards of a [MemoryStore]. Get takes the read lock of one shard.
const shards = 256

// defaultMaxEntries is the default of MemoryConfig.MaxEntries.
const defaultMaxEntries = 4 << 20

// MemoryConfig configures a [MemoryStore]. The zero value works.
type MemoryConfig struct {
	// MaxEntries bounds the IDs that are stored at once. 0 means 4 194 304.
	MaxEntries int
	// Now returns the current time. nil means time.Now.
	Now func() time.Time
}

// MemoryStore is a [Store] in memory, the default of relays. It consists of 256 shards, each
// with a lock. Get does not allocate, and waits at most for a Put or Delete in one shard.
type MemoryStore struct {
	now    func() time.Time
	max    int64
	count  atomic.Int64
	swept  atomic.Int64 // time of the last sweep of the full store, of package monotime
	seed   maphash.Seed // secret, because attackers may choose IDs
	shards [shards]shard
}

type shard struct {
	mu      sync.RWMutex
	entries map[ID]entry
	_       [64]byte // so that no two locks share a cache line
}

type entry struct {
	Association
	expires int64 // time of package monotime
}

var _ Store = (*MemoryStore)(nil)

// NewMemoryStore returns an empty store. cfg may be nil. The caller should call
// [MemoryStore.Expire] from time to time, to free the memory of expired IDs.
func NewMemoryStore(cfg *MemoryConfig) *MemoryStore {
	if cfg == nil {
		cfg = &MemoryConfig{}
	}
	s := &MemoryStore{now: cfg.Now, max: int64(cfg.MaxEntries), seed: maphash.MakeSeed()}
	if s.now == nil {
		s.now = time.Now
	}
	if s.max == 0 {
		s.max = defaultMaxEntries
	}
	for i := range s.shards {
		s.shards[i].entries = make(map[ID]entry)
	}
	return s
}

func (s *MemoryStore) shard(id ID) *shard {
	return &s.shards[maphash.Bytes(s.seed, id.b[:id.n])%shards]
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

func (s *MemoryStore) put(id ID, a Association, now time.Time, ttl time.Duration) error {
	sh := s.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	old, ok := sh.entries[id]
	if ok && old.Owner != a.Owner && old.expires > monotime.Of(now) {
		return ErrConflict
	}
	if !ok && s.count.Add(1) > s.max {
		s.count.Add(-1)
		return ErrFull
	}
	sh.entries[id] = entry{a, monotime.Of(now.Add(ttl))}
	return nil
}

// maySweep says whether the last sweep of the full store was at least a second ago, and
// notes that there is one now.
func (s *MemoryStore) maySweep(now time.Time) bool {
	last := s.swept.Load()
	return monotime.Age(last, now) >= time.Second && s.swept.CompareAndSwap(last, monotime.Of(now))
}

// Get implements [Store].
func (s *MemoryStore) Get(id ID) (Association, bool) {
	sh := s.shard(id)
	sh.mu.RLock()
	e, ok := sh.entries[id]
	sh.mu.RUnlock()
	if !ok || e.expires <= monotime.Of(s.now()) {
		return Association{}, false
	}
	return e.Association, true
}

// Delete implements [Store].
func (s *MemoryStore) Delete(id ID, owner Owner) {
	sh := s.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e, ok := sh.entries[id]; ok && e.Owner == owner {
		delete(sh.entries, id)
		s.count.Add(-1)
	}
}

// Len returns how many IDs are stored, including expired ones that have not been removed.
func (s *MemoryStore) Len() int { return int(s.count.Load()) }

// Cap returns how many IDs may be stored at once.
func (s *MemoryStore) Cap() int { return int(s.max) }

// Expire removes the expired IDs, and returns how many there were.
func (s *MemoryStore) Expire() int {
	now := monotime.Of(s.now())
	n := 0
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		n += s.expire(sh, now)
		sh.mu.Unlock()
	}
	return n
}

// expire removes the expired IDs of a shard. The caller holds the lock of the shard.
func (s *MemoryStore) expire(sh *shard, now int64) int {
	n := 0
	for id, e := range sh.entries {
		if e.expires <= now {
			delete(sh.entries, id)
			n++
		}
	}
	s.count.Add(int64(-n))
	return n
}
