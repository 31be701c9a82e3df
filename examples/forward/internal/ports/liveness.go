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
	// lookEvery is how often the counters of a session are looked at.
	lookEvery = 250 * time.Millisecond
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

// state says whether the peer was heard lately or has answered, and whether it has not for long.
func (l *liveness) state(now time.Time) (lately, answered, silent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	answered = l.asked.IsZero()
	return answered && now.Sub(l.heard) < heardLately, answered, !answered && now.Sub(l.asked) >= silentAfter
}

// look returns the state of the session's liveness.
func (s *Session) look() (lately, answered, silent bool) {
	now := time.Now()
	s.live.note(s.conn.ConnectionStats(), now)
	return s.live.state(now)
}

// ask has the peer send a packet. QUIC asks again by itself.
func (s *Session) ask() {
	if s.live.ask(time.Now()) {
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

// answers says whether the peer answers. It asks the peer if it has not been heard lately.
func (s *Session) answers(ctx context.Context) bool {
	if lately, _, _ := s.look(); lately {
		return true
	}
	s.ask()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return false
		case <-s.context().Done():
			return false
		}
		if _, answered, silent := s.look(); answered || silent {
			return answered
		}
	}
}

// awaitSilence returns true when the peer does not answer, and false when the connection or ctx
// has ended.
func (s *Session) awaitSilence(ctx context.Context) bool {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		_, _, silent := s.look()
		if silent {
			return true
		}
		if s.live.doubtful(time.Now()) {
			s.ask()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return false
		case <-s.context().Done():
			return false
		}
	}
}

// staysSilent is asked when the peer is reachable again, on another connection. It returns false
// if this one is heard as well, soon: its retransmissions may have become rare.
func (s *Session) staysSilent(ctx context.Context) bool {
	s.ask()
	s.sendAsk()
	ctx, cancel := context.WithTimeout(ctx, silentAfter)
	defer cancel()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		if _, answered, _ := s.look(); answered {
			return false
		}
		select {
		case <-ticker.C:
		case <-s.context().Done():
			return true
		case <-ctx.Done():
			return true
		}
	}
}
