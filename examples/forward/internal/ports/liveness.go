package ports

import (
	"context"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

const (
	// heardLately is how long ago the peer must have been heard for its session to be used
	// without a question.
	heardLately = time.Second
	// silentAfter is how long the peer may take to answer. A connection that changes its path or
	// its relay is silent for less.
	silentAfter = 3 * time.Second
	// lookEvery is how often the counters of a session are looked at, and askedEvery how often while
	// a connection that has arrived here waits for the answer.
	lookEvery  = 250 * time.Millisecond
	askedEvery = 5 * time.Millisecond
)

// noFlow is a datagram of a flow that no stream can have. The peer acknowledges it, and drops it.
var noFlow = quicvarint.Append(nil, 1<<62-1)

// liveness says whether a peer answers. One that was killed, and perhaps has started again, sends
// no close: the connection would seem to live until its idle timeout.
type liveness struct {
	mu             sync.Mutex // guards the following
	received, sent uint64     // packets, when the peer was last heard
	heard          time.Time
	waiting        time.Time // since when something that was sent has no answer; zero: all has
	asked          time.Time // when the peer was asked; zero: it has been heard since
}

// note takes in the counters of the connection.
func (l *liveness) note(stats quic.ConnectionStats, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case stats.PacketsReceived != l.received:
		l.received, l.sent, l.heard = stats.PacketsReceived, stats.PacketsSent, now
		l.waiting, l.asked = time.Time{}, time.Time{}
	case stats.PacketsSent != l.sent && l.waiting.IsZero():
		l.waiting = now
	}
}

// doubtful says whether the peer should be asked: what was sent may need no answer.
func (l *liveness) doubtful(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked.IsZero() && !l.waiting.IsZero() && now.Sub(l.waiting) >= silentAfter
}

// ask notes a question, and says whether it is the first one since the peer was heard.
func (l *liveness) ask(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.asked.IsZero()
	if first {
		l.asked = now
	}
	return first
}

// lately says whether the peer was heard a short time ago, and owes no answer.
func (l *liveness) lately(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked.IsZero() && now.Sub(l.heard) < heardLately
}

// answered says whether the peer was heard since it was asked.
func (l *liveness) answered() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked.IsZero()
}

// silent says whether the peer has owed an answer for too long.
func (l *liveness) silent(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.asked.IsZero() && now.Sub(l.asked) >= silentAfter
}

// look takes in the present counters of the connection, and returns the time at which it has.
func (s *Session) look() time.Time {
	now := time.Now()
	s.live.note(s.conn.ConnectionStats(), now)
	return now
}

// ask has the peer send a packet, unless it has been asked. QUIC asks again by itself. Packets that
// have come before are no answer.
func (s *Session) ask() {
	if s.live.ask(s.look()) {
		s.sendAsk()
	}
}

func (s *Session) sendAsk() {
	select {
	case s.asks <- struct{}{}:
	default: // the queue of datagrams is full, so packets that need an answer are under way
	}
}

// sendAsks sends what asks the peer, until the connection ends.
func (s *Session) sendAsks() {
	for {
		select {
		case <-s.asks:
			_ = s.conn.SendDatagram(noFlow)
		case <-s.context().Done():
			return
		}
	}
}

// pause waits for a tick. It returns false if ctx or the connection has ended.
func (s *Session) pause(ctx context.Context, ticker *time.Ticker) bool {
	select {
	case <-ticker.C:
	case <-ctx.Done():
	case <-s.context().Done():
	}
	return ctx.Err() == nil && s.context().Err() == nil
}

// answers says whether the peer answers. It asks the peer if it has not been heard lately.
func (s *Session) answers(ctx context.Context) bool {
	if s.live.lately(s.look()) {
		return true
	}
	s.ask()
	ticker := time.NewTicker(askedEvery)
	defer ticker.Stop()
	for s.pause(ctx, ticker) {
		switch now := s.look(); {
		case s.live.answered():
			return true
		case s.live.silent(now):
			return false
		}
	}
	return false
}

// awaitSilence returns true when the peer does not answer, and false when the connection or ctx
// has ended.
func (s *Session) awaitSilence(ctx context.Context) bool {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for s.pause(ctx, ticker) {
		switch now := s.look(); {
		case s.live.silent(now):
			return true
		case s.live.doubtful(now):
			s.ask()
		}
	}
	return false
}

// staysSilent is called when the peer is reachable on another connection. It returns false if the
// peer is heard on this one as well, soon. It asks once more, since QUIC may have come to ask rarely.
func (s *Session) staysSilent(ctx context.Context) bool {
	s.ask()
	s.sendAsk()
	ctx, cancel := context.WithTimeout(ctx, silentAfter)
	defer cancel()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for s.pause(ctx, ticker) {
		if s.look(); s.live.answered() {
			return false
		}
	}
	return true
}
