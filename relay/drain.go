package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/monotime"
)

// When a leg counts as left, after the server has begun to drain.
const (
	// drainQuiet is how long a leg must have been silent. It is longer than the
	// keepalives of peers are apart.
	drainQuiet = 20 * time.Second
	// drainLinger is how long, if the leg has ended or its control connection is gone.
	// The kernel's counters are read each sweepPeriod.
	drainLinger = 2 * sweepPeriod
	// drainNotice is how long peers that were silent before have to find another relay.
	drainNotice = 5 * time.Second
)

// SetMembers replaces [Config.Members]. If there is an error, which wraps ErrConfig, the
// members stay what they were. The server keeps no reference to the list.
func (s *Server) SetMembers(list []Member) error {
	if err := s.members.set(list); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	return nil
}

// Drain prepares the end of the server: it opens no more sessions, but sends their clients
// to another relay ([Config.Members]), or refuses them if there is none. It tells all
// clients where to go, those that come later as well, and waits until they have gone, or
// ctx is done. Meanwhile the server, and the kernel, go on to forward. Afterwards the server
// still runs, and drains: the caller closes it. Drain may be called more than once.
//
// A peer has gone when its leg has expired. It has also gone when at least 5 seconds have
// passed since Drain was called, and for 20 seconds it has neither sent a packet nor
// refreshed its leg. If it has ended its leg, or has no control connection, both times are 2
// seconds. A peer that has nothing to send is
// not waited for any longer: it finds another relay when it needs one. So ctx should last
// for more than 20 seconds.
//
// Drain returns nil if all peers have gone. If not, it returns an error that wraps the error
// of ctx, or ErrClosed if the server is closed meanwhile.
func (s *Server) Drain(ctx context.Context) error {
	s.subscribers.drain()
	since := time.Now()
	s.log.Info("relay drains", "sessions", s.sessions.inUse(since, since))
	ticker := time.NewTicker(sweepPeriod)
	defer ticker.Stop()
	for {
		left := s.sessions.inUse(since, time.Now())
		if left == 0 {
			s.log.Info("all peers have left")
			return nil
		}
		select {
		case <-ctx.Done():
			s.log.Warn("peers have not left", "sessions", left)
			return fmt.Errorf("relay: %d sessions are in use: %w", left, ctx.Err())
		case <-s.closing.Done():
			return ErrClosed
		case <-ticker.C:
		}
	}
}

// Shutdown stops the server gracefully: it drains the server, and closes it when the peers
// have gone or ctx is done. It returns the error of [Server.Drain], if peers were left.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.Drain(ctx)
	if errors.Is(err, ErrClosed) {
		err = nil
	}
	return errors.Join(err, s.Close())
}

// inUse returns how many sessions have a leg whose peer has not left since the server began
// to drain.
func (t *table) inUse(since, now time.Time) (n int) {
	for _, ses := range t.snapshot() {
		if ses.inUse(since, now) {
			n++
		}
	}
	return n
}

func (ses *session) inUse(since, now time.Time) bool {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	return ses.legs[control.Dialer].inUseLocked(since, now) || ses.legs[control.Accepter].inUseLocked(since, now)
}

// inUseLocked says whether the peer of a leg has not left.
func (l *leg) inUseLocked(since, now time.Time) bool {
	if !l.present {
		return false
	}
	quiet, notice := drainQuiet, drainNotice
	if !l.ended.IsZero() || !l.connected() {
		quiet, notice = drainLinger, drainLinger
	}
	last := max(monotime.Of(l.lastRefreshed), l.lastPacket.Load())
	return now.Sub(since) < notice || monotime.Age(last, now) < quiet
}

// mayOffer says whether an offer to a session can be left. A server that drains takes only
// offers to sessions that are open here.
func (g *registrar) mayOffer(id control.SessionID) error {
	if g.env.members.draining() && g.sessions.find(id) == nil {
		return g.elsewhere(id, errDraining)
	}
	return nil
}
