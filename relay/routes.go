package relay

import (
	"context"
	"errors"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
)

// maxHits is how many hits may wait for slideLoop: one of a leg at most.
const maxHits = 4096

// hit has the window of a leg slid after a hit in its upper half. Forwarding
// loops call it, which wait neither for a session's lock nor for the store to
// write: if there is no room the hit is counted, and the next packet says it
// again.
func (s *Server) hit(at *route) {
	l := &at.ses.legs[at.role]
	if !l.told.CompareAndSwap(false, true) {
		return
	}
	select {
	case s.hits <- *at:
	default:
		l.told.Store(false)
		s.storeFailed(errSlow)
	}
}

// errSlow is what a store that does not keep up is counted as.
var errSlow = errors.New("the store does not keep up")

// slideLoop slides windows after hits until ctx is done.
func (s *Server) slideLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case at := <-s.hits:
			at.ses.legs[at.role].told.Store(false)
			s.slide(at.ses, at.role, at.counter)
		}
	}
}

// slide moves the window of a leg on after a hit in its upper half, so that
// the IDs that the sender will turn to next are known before it does.
func (s *Server) slide(ses *session, role control.Role, counter uint64) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	s.slideLocked(ses, role, counter)
}

func (s *Server) slideLocked(ses *session, role control.Role, counter uint64) {
	l := &ses.legs[role]
	if lo, hi := l.window.Bounds(); !l.present || counter < lo || counter >= hi {
		return
	}
	if counter >= l.window.Due() {
		drop, add := l.window.Hit(counter)
		s.forgetLocked(l, drop)
		s.learnLocked(ses, role, add)
	}
	l.late.Store(0)
	s.approachLocked(ses, role, counter)
}

// learnLocked routes the IDs of a range of counters to a leg.
func (s *Server) learnLocked(ses *session, role control.Role, r cid.Range) {
	l := &ses.legs[role]
	a := cid.Association{Owner: l.owner, Session: ses.num, Leg: uint8(role)}
	for a.Counter = r.Lo; a.Counter < r.Hi; a.Counter++ {
		s.putRoute(l.ids.ID(a.Counter), a)
	}
	if s.offload.near() == 0 {
		l.due.Store(l.window.Due())
	}
}

// forgetLocked ends the routes of a range of counters.
func (s *Server) forgetLocked(l *leg, r cid.Range) {
	for c := r.Lo; c < r.Hi; c++ {
		s.deleteRoute(l.ids.ID(c), l.owner)
	}
}

// renewLocked stores a leg's IDs anew before the store forgets them.
func (s *Server) renewLocked(ses *session, role control.Role, now time.Time) {
	l := &ses.legs[role]
	lo, hi := l.window.Bounds()
	owner := l.owner
	l.holder.Store(&owner)
	s.learnLocked(ses, role, cid.Range{Lo: lo, Hi: hi})
	l.stored = now.Add(s.storeTTL())
}

// learnInitialLocked routes the random ID of the dialer's first flight to the
// accepter's leg. Another leg's ID is not taken over.
func (s *Server) learnInitialLocked(ses *session, id cid.ID, now time.Time) error {
	l := &ses.legs[control.Accepter]
	if id.IsZero() || id == l.initial {
		return nil
	}
	a := cid.Association{Owner: l.owner, Session: ses.num, Leg: uint8(control.Accepter), Counter: noCounter}
	if err := s.conf.Store.Put(id, a, s.conf.OfferTTL); err != nil {
		return err
	}
	s.forgetInitialLocked(l)
	l.initial, l.initialGone = id, now.Add(s.conf.OfferTTL)
	return nil
}

func (s *Server) forgetInitialLocked(l *leg) {
	if l.initial.IsZero() {
		return
	}
	s.deleteRoute(l.initial, l.owner)
	l.initial = cid.ID{}
}

// storeTTL outlives a leg, so that a leg that lives is renewed in time.
func (s *Server) storeTTL() time.Duration { return 2 * s.conf.TTL }

func (s *Server) putRoute(id cid.ID, a cid.Association) {
	if err := s.conf.Store.Put(id, a, s.storeTTL()); err != nil {
		s.storeFailed(err)
		return
	}
}

func (s *Server) deleteRoute(id cid.ID, owner cid.Owner) {
	s.conf.Store.Delete(id, owner)
}

// storeFailed counts, and logs the first failure of many.
func (s *Server) storeFailed(err error) {
	if s.counters.storeErrors.Add(1) == 1 {
		s.log.Error("the store does not take connection IDs; counting further ones", "err", err)
	}
}
