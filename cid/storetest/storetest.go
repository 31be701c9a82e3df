// Package storetest checks implementations of [cid.Store].
package storetest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/quicway/quicway/cid"
)

// New makes an empty store that uses the clock now, and has room for max IDs,
// or for more if that is beyond its control: then it returns false.
type New func(t *testing.T, now func() time.Time, max int) (store cid.Store, bounded bool)

// clock is what the stores of the tests tell the time by.
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

// suite is one test's store and clock.
type suite struct {
	cid.Store
	t     *testing.T
	ctx   context.Context
	clock *clock
}

var (
	alice = cid.Owner{1}
	bob   = cid.Owner{2}
)

const ttl = time.Minute

// Run runs the whole suite.
func Run(t *testing.T, make New) {
	for name, test := range map[string]func(*suite){
		"get what was put":          testPutGet,
		"refresh":                   testRefresh,
		"conflict":                  testConflict,
		"expiry":                    testExpiry,
		"an expired ID is nobody's": testExpiredOwner,
		"delete":                    testDelete,
		"IDs of every length":       testLengths,
		"enumerate":                 testAll,
		"cancelled context":         testCancelled,
		"concurrency":               testConcurrency,
	} {
		t.Run(name, func(t *testing.T) {
			c := &clock{now: time.Unix(1_800_000_000, 0)}
			store, _ := make(t, c.Now, 1<<16)
			test(&suite{store, t, t.Context(), c})
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
	if err := s.Put(s.ctx, id, a, ttl); err != nil {
		s.t.Fatalf("Put: %v", err)
	}
}

func (s *suite) want(id cid.ID, want cid.Association) {
	s.t.Helper()
	if got, err := s.Get(s.ctx, id); err != nil || got != want {
		s.t.Fatalf("Get(%v): got %+v, %v, want %+v", id, got, err, want)
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
	_, err := s.Get(s.ctx, id)
	s.wantError(err, cid.ErrNotFound)
}

func testPutGet(s *suite) {
	s.wantNone(idOf(1))
	a := cid.Association{Owner: alice, Session: 1<<40 + 7, Counter: ^uint64(0), Leg: 1}
	s.put(idOf(1), a)
	s.want(idOf(1), a)
	s.wantNone(idOf(2))
}

func testRefresh(s *suite) {
	s.put(idOf(1), cid.Association{Owner: alice, Session: 1})
	s.clock.advance(ttl - time.Second)
	moved := cid.Association{Owner: alice, Session: 2, Counter: 3, Leg: 1}
	s.put(idOf(1), moved)
	s.clock.advance(ttl - time.Second)
	s.want(idOf(1), moved)
}

func testConflict(s *suite) {
	a := cid.Association{Owner: alice, Session: 1}
	s.put(idOf(1), a)
	s.wantError(s.Put(s.ctx, idOf(1), cid.Association{Owner: bob, Session: 2}, ttl), cid.ErrConflict)
	s.want(idOf(1), a)
	s.wantError(s.Delete(s.ctx, idOf(1), bob), cid.ErrConflict)
	s.want(idOf(1), a)
}

func testExpiry(s *suite) {
	a := cid.Association{Owner: alice, Session: 1}
	s.put(idOf(1), a)
	s.clock.advance(ttl - time.Nanosecond)
	s.want(idOf(1), a)
	s.clock.advance(time.Nanosecond)
	s.wantNone(idOf(1))
	s.wantError(s.Delete(s.ctx, idOf(1), alice), cid.ErrNotFound)
}

func testExpiredOwner(s *suite) {
	s.put(idOf(1), cid.Association{Owner: alice, Session: 1})
	s.clock.advance(ttl)
	b := cid.Association{Owner: bob, Session: 2}
	s.put(idOf(1), b)
	s.want(idOf(1), b)
}

func testDelete(s *suite) {
	s.wantError(s.Delete(s.ctx, idOf(1), alice), cid.ErrNotFound)
	s.put(idOf(1), cid.Association{Owner: alice})
	if err := s.Delete(s.ctx, idOf(1), alice); err != nil {
		s.t.Fatalf("Delete: %v", err)
	}
	s.wantNone(idOf(1))
	b := cid.Association{Owner: bob}
	s.put(idOf(1), b)
	s.want(idOf(1), b)
}

// testLengths: the first ID of a connection has 8 to 20 bytes, and one is not
// another that it begins with.
func testLengths(s *suite) {
	var full [cid.MaxLen]byte
	for n := range cid.MaxLen + 1 {
		id, err := cid.IDFrom(full[:n])
		if err != nil {
			s.t.Fatal(err)
		}
		s.put(id, cid.Association{Owner: alice, Session: uint64(n)})
	}
	for n := range cid.MaxLen + 1 {
		id, _ := cid.IDFrom(full[:n])
		s.want(id, cid.Association{Owner: alice, Session: uint64(n)})
	}
}

func testAll(s *suite) {
	const n = 1000
	want := make(map[cid.ID]cid.Association)
	for i := range uint64(n) {
		want[idOf(i)] = cid.Association{Owner: alice, Session: i, Counter: i}
		s.put(idOf(i), want[idOf(i)])
	}
	if err := s.Put(s.ctx, idOf(n), cid.Association{Owner: alice}, time.Second); err != nil {
		s.t.Fatal(err)
	}
	s.clock.advance(time.Second) // of the last one only
	for e, err := range s.All(s.ctx) {
		if err != nil {
			s.t.Fatalf("All: %v", err)
		}
		if want[e.ID] != e.Association || !e.Expires.Equal(s.clock.Now().Add(ttl-time.Second)) {
			s.t.Fatalf("All yields %+v, want %+v", e, want[e.ID])
		}
		delete(want, e.ID)
	}
	if len(want) > 0 {
		s.t.Fatalf("All left out %d of %d IDs", len(want), n)
	}
	for range s.All(s.ctx) {
		return // may stop early
	}
}

func testCancelled(s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	s.wantError(s.Put(ctx, idOf(1), cid.Association{Owner: alice}, ttl), context.Canceled)
	s.wantNone(idOf(1))
	s.put(idOf(1), cid.Association{Owner: alice})
	s.wantError(s.Delete(ctx, idOf(1), alice), context.Canceled)
	s.want(idOf(1), cid.Association{Owner: alice})
	for _, err := range s.All(ctx) {
		s.wantError(err, context.Canceled)
	}
}

// testConcurrency: two owners fight over the same IDs. Each ID is always the
// whole association of one of them.
func testConcurrency(s *suite) {
	var wg sync.WaitGroup
	for worker, owner := range []cid.Owner{alice, bob, alice, bob} {
		wg.Go(func() {
			for i := range uint64(2000) {
				id := idOf(i % 50)
				a := cid.Association{Owner: owner, Session: uint64(owner[0]), Counter: uint64(owner[0])}
				if err := s.Put(s.ctx, id, a, ttl); err != nil && !errors.Is(err, cid.ErrConflict) {
					s.t.Errorf("worker %d: Put: %v", worker, err)
				}
				if err := mixed(s.Get(s.ctx, id)); err != nil {
					s.t.Errorf("worker %d: %v", worker, err)
				}
				if err := s.Delete(s.ctx, id, owner); err != nil && !errors.Is(err, cid.ErrConflict) && !errors.Is(err, cid.ErrNotFound) {
					s.t.Errorf("worker %d: Delete: %v", worker, err)
				}
			}
		})
	}
	wg.Wait()
}

func mixed(a cid.Association, err error) error {
	if errors.Is(err, cid.ErrNotFound) {
		return nil
	}
	if err == nil && (a.Session != uint64(a.Owner[0]) || a.Counter != a.Session) {
		err = fmt.Errorf("association of two owners: %+v", a)
	}
	return err
}

// testFull: a store that is full takes refreshes, and new IDs as soon as old
// ones expire or are deleted.
func testFull(t *testing.T, make New) {
	const max = 100
	c := &clock{now: time.Unix(1_800_000_000, 0)}
	store, bounded := make(t, c.Now, max)
	if !bounded {
		t.Skip("the store has no bound of its own")
	}
	s := &suite{store, t, t.Context(), c}
	a := cid.Association{Owner: alice}
	for i := range uint64(max) {
		s.put(idOf(i), a)
	}
	s.wantError(s.Put(s.ctx, idOf(max), a, ttl), cid.ErrFull)
	s.wantNone(idOf(max))
	s.put(idOf(0), a)
	if err := s.Delete(s.ctx, idOf(0), alice); err != nil {
		t.Fatal(err)
	}
	s.put(idOf(max), a)
	s.wantError(s.Put(s.ctx, idOf(0), a, ttl), cid.ErrFull)
	c.advance(ttl)
	for i := range uint64(max) {
		s.put(idOf(1000+i), a)
	}
}
