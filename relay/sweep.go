package relay

import (
	"context"
	"time"
)

// sweepPeriod is how often the server looks for what has expired.
const sweepPeriod = time.Second

// sweepLoop sweeps until ctx is done.
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

// sweep expires legs, offers and routes.
func (s *Server) sweep(now time.Time) {
	for _, ses := range s.sessions.snapshot() {
		ses.sweep(now)
	}
	s.mailbox.expire(now)
	s.counters.heldDropped.Add(uint64(s.held.expire(now)))
	s.registrar.ended.expire(now)
	s.store.expire(now)
}
