package relay

import (
	"log/slog"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/ratelog"
)

// env is what the parts of a server share: its configuration, its sockets, and the
// tables that say where packets go. It has no state of its own.
type env struct {
	conf     *Config
	log      *slog.Logger
	sockets  *sockets
	members  *members
	store    *idStore
	offload  offload
	slider   *slider
	held     held
	counters serverCounters
}

// locate returns the address of a client, as [sockets.locate] does. The address of another
// relay is only that of a leg if it is the other relay that has connected from it. Nobody
// else can be there, unless that relay forwards packets that it should not.
func (e *env) locate(c *client) (legAddr, error) {
	addr, err := e.sockets.locate(c)
	if err != nil {
		return legAddr{}, err
	}
	if member, ok := e.members.at(addr.remote); ok {
		if !e.members.is(member, c) {
			return legAddr{}, errMember
		}
		addr.member = true
	}
	return addr, nil
}

// idStore is the server's [cid.Store]. It counts the errors of the store, and logs the
// first one.
type idStore struct {
	cid.Store
	ttl    time.Duration // of a route
	log    *slog.Logger
	errors *ratelog.Errors
	swept  time.Time // of the last Expire; used only by the sweep goroutine
}

var _ routeTable = (*idStore)(nil)

// newStore wraps the configured store. Its routes outlive a leg that is not refreshed,
// so that a live leg's routes are renewed in time.
func newStore(e *env) *idStore {
	return &idStore{Store: e.conf.Store, ttl: 2 * e.conf.TTL, log: e.log, errors: &e.counters.storeErrors}
}

func (s *idStore) putRoute(id cid.ID, a cid.Association) {
	if err := s.Put(id, a, s.ttl); err != nil {
		s.failed(err)
	}
}

func (s *idStore) deleteRoute(id cid.ID, a cid.Association) { s.Delete(id, a.Owner) }

func (s *idStore) failed(err error) {
	s.errors.Add(s.log, slog.LevelError, "the store does not take connection IDs", err)
}

// expire frees the memory of expired routes, if the store has a method for that. An
// expired route leads nowhere, so it is enough to do this every half TTL of a leg.
func (s *idStore) expire(now time.Time) {
	store, ok := s.Store.(interface{ Expire() int })
	if ok && now.Sub(s.swept) >= s.ttl/4 {
		s.swept = now
		store.Expire()
	}
}
