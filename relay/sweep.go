package relay

import (
	"context"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
)

// sweepPeriod is how often the server looks after what time alone changes.
const sweepPeriod = time.Second

// sweepLoop expires sessions and offers until ctx is done.
func (s *Server) sweepLoop(ctx context.Context) {
	ticker := time.NewTicker(sweepPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			s.sweep(now)
		}
	}
}

func (s *Server) sweep(now time.Time) {
	for _, ses := range s.sessions.snapshot() {
		s.sweepSession(ses, now)
	}
	s.mailbox.expire(now)
	s.ended.expire(now)
	s.expireStore(now)
}

// expireStore has a store that can do so give back what has expired. What it
// keeps meanwhile leads nowhere, so now and then is enough.
func (s *Server) expireStore(now time.Time) {
	store, ok := s.conf.Store.(interface{ Expire() int })
	if ok && now.Sub(s.storeSwept) >= s.conf.TTL/2 {
		s.storeSwept = now
		store.Expire()
	}
}

func (s *Server) sweepSession(ses *session, now time.Time) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	for role, heard := range s.accountLocked(ses) {
		if heard {
			ses.legs[role].heard.Store(now.UnixNano())
		}
	}
	legs := 0
	for r := range ses.legs {
		if s.sweepLegLocked(ses, control.Role(r), now) {
			legs++
		}
	}
	if legs > 0 || ses.over {
		return
	}
	s.overLocked(ses)
}

// overLocked ends a session that has no legs.
func (s *Server) overLocked(ses *session) {
	ses.over = true
	s.sessions.remove(ses)
	s.offload.deleteSession(ses.num)
	s.log.Info("session over", "session", ses.id)
}

// sweepLegLocked does what is due for a leg and says whether it is there.
func (s *Server) sweepLegLocked(ses *session, role control.Role, now time.Time) bool {
	l := &ses.legs[role]
	if !l.present {
		return false
	}
	if l.client.conn != nil && !l.connected() {
		l.client = new(client) // the connection is large, and the leg may outlive it
	}
	if !l.ended.IsZero() {
		if now.Sub(l.ended) >= linger {
			s.dropLegLocked(ses, role)
		}
		return l.present
	}
	if now.After(ses.aliveLocked(role)) {
		s.counters.expired.Add(1)
		s.log.Info("leg expired", "session", ses.id, "role", role)
		s.goneLocked(ses, role)
		s.dropLegLocked(ses, role)
		return false
	}
	s.followLocked(ses, role)
	if !l.initial.IsZero() && now.After(l.initialGone) {
		s.forgetInitialLocked(l)
	}
	if l.stored.Sub(now) < s.conf.TTL {
		s.renewLocked(ses, role, now)
	}
	return true
}

// dropLegLocked ends a leg's routes and forgets where it is.
func (s *Server) dropLegLocked(ses *session, role control.Role) {
	l := &ses.legs[role]
	s.forgetInitialLocked(l)
	s.departLocked(l)
	lo, hi := l.window.Bounds()
	s.forgetLocked(l, cid.Range{Lo: lo, Hi: hi})
	l.addr.Store(nil)
	l.holder.Store(nil)
	l.present, l.client, l.ids = false, nil, nil
	s.offload.putSession(ses.num, s.ways(ses))
	s.noteLocked(ses)
}
