// Package storetest tests implementations of [cid.Store].
package storetest

import (
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/quicway/quicway/cid"
)

// New makes an empty store that takes the time from now, and has room for max IDs. It
// returns bounded = false if the store cannot be limited to max IDs.
type New func(t *testing.T, now func() time.Time, max int) (store cid.Store, bounded bool)

// clock is the clock of the tested stores.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// suite is the store and the clock of one test.
type suite struct {
	cid.Store
	t     *testing.T
	clock *clock
}

var (
	alice = cid.Owner{1}
	bob   = cid.Owner{2}
)

const ttl = time.Minute

// slack is how wrong the clock of a store may be.
const slack = time.Second

// Run tests everything that a relay needs from a store, and nothing else. A store may have
// other methods and errors of its own, need not be bounded, and its clock may be wrong by a
// second.
func Run(t *testing.T, make New) {
	for name, test := range map[string]func(*suite){
		"get what was put":            testPutGet,
		"refresh":                     testRefresh,
		"conflict":                    testConflict,
		"expiry":                      testExpiry,
		"expired ID of another owner": testExpiredOwner,
		"delete":                      testDelete,
		"IDs of every length":         testLengths,
		"concurrency":                 testConcurrency,
	} {
		t.Run(name, func(t *testing.T) {
			c := &clock{now: time.Unix(1_800_000_000, 0)}
			store, _ := make(t, c.Now, 1<<16)
			test(&suite{store, t, c})
		})
	}
	t.Run("full", func(t *testing.T) { testFull(t, make) })
}

func idOf(n uint64) cid.ID {
	id, err := cid.IDFrom(binary.BigEndian.AppendUint64([]byte{1, 2, 3, 4}, n))
	if err != nil {
		panic(err)
	}
	return id
}

func (s *suite) put(id cid.ID, a cid.Association) {
	s.t.Helper()
	if err := s.Put(id, a, ttl); err != nil {
		s.t.Fatalf("Put: %v", err)
	}
}

func (s *suite) want(id cid.ID, want cid.Association) {
	s.t.Helper()
	if got, ok := s.Get(id); !ok || got != want {
		s.t.Fatalf("Get(%v): got %+v, %v, want %+v", id, got, ok, want)
	}
}

func (s *suite) wantError(got, want error) {
	s.t.Helper()
	if !errors.Is(got, want) {
		s.t.Fatalf("got error %v, want %v", got, want)
	}
}

func (s *suite) wantNone(id cid.ID) {
	s.t.Helper()
	if a, ok := s.Get(id); ok {
		s.t.Fatalf("Get(%v): got %+v, want none", id, a)
	}
}

func testPutGet(s *suite) {
	s.wantNone(idOf(1))
	a := cid.Association{Owner: alice, Session: 1<<40 + 7, Counter: ^uint64(0), Leg: 1}
	s.put(idOf(1), a)
	s.want(idOf(1), a)
	s.wantNone(idOf(2))
}

// testRefresh checks that an owner can put an ID again, also with another session, as after
// a restart of the relay.
func testRefresh(s *suite) {
	s.put(idOf(1), cid.Association{Owner: alice, Session: 1})
	s.clock.advance(ttl - slack)
	moved := cid.Association{Owner: alice, Session: 2, Counter: 3, Leg: 1}
	s.put(idOf(1), moved)
	s.clock.advance(ttl - slack)
	s.want(idOf(1), moved)
}

func testConflict(s *suite) {
	a := cid.Association{Owner: alice, Session: 1}
	s.put(idOf(1), a)
	s.wantError(s.Put(idOf(1), cid.Association{Owner: bob, Session: 2}, ttl), cid.ErrConflict)
	s.want(idOf(1), a)
	s.Delete(idOf(1), bob)
	s.want(idOf(1), a)
}

func testExpiry(s *suite) {
	a := cid.Association{Owner: alice, Session: 1}
	s.put(idOf(1), a)
	s.clock.advance(ttl - slack)
	s.want(idOf(1), a)
	s.clock.advance(2 * slack)
	s.wantNone(idOf(1))
	s.Delete(idOf(1), alice)
	s.wantNone(idOf(1))
}

func testExpiredOwner(s *suite) {
	s.put(idOf(1), cid.Association{Owner: alice, Session: 1})
	s.clock.advance(ttl + slack)
	b := cid.Association{Owner: bob, Session: 2}
	s.put(idOf(1), b)
	s.want(idOf(1), b)
}

func testDelete(s *suite) {
	s.Delete(idOf(1), alice) // it is not in the store
	s.put(idOf(1), cid.Association{Owner: alice})
	s.Delete(idOf(1), alice)
	s.wantNone(idOf(1))
	b := cid.Association{Owner: bob}
	s.put(idOf(1), b)
	s.want(idOf(1), b)
}

// testLengths checks IDs of all lengths, because clients draw the first ID of a connection.
// An ID must not be confused with a longer one that begins with the same bytes.
func testLengths(s *suite) {
	var full [cid.MaxLen]byte
	for n := 1; n <= cid.MaxLen; n++ {
		id, err := cid.IDFrom(full[:n])
		if err != nil {
			s.t.Fatal(err)
		}
		s.put(id, cid.Association{Owner: alice, Session: uint64(n)})
	}
	for n := 1; n <= cid.MaxLen; n++ {
		id, _ := cid.IDFrom(full[:n])
		s.want(id, cid.Association{Owner: alice, Session: uint64(n)})
	}
}

// testConcurrency checks that an association is never a mixture of those of two owners that
// put and delete the same IDs at the same time.
func testConcurrency(s *suite) {
	var wg sync.WaitGroup
	for worker, owner := range []cid.Owner{alice, bob, alice, bob} {
		wg.Go(func() {
			for i := range uint64(2000) {
				id := idOf(i % 50)
				a := cid.Association{Owner: owner, Session: uint64(owner[0]), Counter: uint64(owner[0])}
				if err := s.Put(id, a, ttl); err != nil && !errors.Is(err, cid.ErrConflict) {
					s.t.Errorf("worker %d: Put: %v", worker, err)
				}
				if got, ok := s.Get(id); ok && mixed(got) {
					s.t.Errorf("worker %d: association of two owners: %+v", worker, got)
				}
				s.Delete(id, owner)
			}
		})
	}
	wg.Wait()
}

// mixed says whether an association has fields of both owners.
func mixed(a cid.Association) bool {
	return a.Session != uint64(a.Owner[0]) || a.Counter != a.Session
}

// testFull checks that a full store takes refreshes, and takes new IDs as soon as old ones
// expire or are deleted.
func testFull(t *testing.T, make New) {
	const max = 100
	c := &clock{now: time.Unix(1_800_000_000, 0)}
	store, bounded := make(t, c.Now, max)
	if !bounded {
		t.Skip("the store has no bound of its own")
	}
	s := &suite{store, t, c}
	a := cid.Association{Owner: alice}
	for i := range uint64(max) {
		s.put(idOf(i), a)
	}
	s.wantError(s.Put(idOf(max), a, ttl), cid.ErrFull)
	s.wantNone(idOf(max))
	s.put(idOf(0), a)
	s.Delete(idOf(0), alice)
	s.put(idOf(max), a)
	s.wantError(s.Put(idOf(0), a, ttl), cid.ErrFull)
	c.advance(ttl + slack)
	for i := range uint64(max) {
		s.put(idOf(1000+i), a)
	}
}
