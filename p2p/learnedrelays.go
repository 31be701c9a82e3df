package p2p

import (
	"slices"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// A relay that drains names others. Who runs it could name hosts that are no relays, so few
// of them are asked, seldom, and only while this endpoint needs a relay.
const (
	// maxLearned bounds the relays of the list that other relays have named.
	maxLearned = 4
	// learnedFor is how long such a relay stays in the list without use.
	learnedFor = 10 * time.Minute
)

// learn adds the relays that a relay which drains has named, as far as they may be used.
func (s *relayList) learn(from Relay, to []control.Member) {
	if !s.endpoint.heeds(from) {
		return
	}
	var more []Relay
	for _, m := range to[:min(len(to), maxRelays)] {
		if r, ok := s.endpoint.named(from, m); ok {
			more = append(more, r)
		}
	}
	s.mu.Lock()
	now, learned := time.Now(), 0
	s.forgetLocked(now)
	for _, e := range s.entries {
		if !e.learned.IsZero() {
			learned++
		}
	}
	for _, r := range more {
		if learned < maxLearned && len(s.entries) < maxRelays && s.findLocked(r) == nil {
			s.entries = append(s.entries, &relayEntry{relay: r, learned: now})
			learned++
		}
	}
	s.announceLocked()
	s.mu.Unlock()
	s.start()
}

// forgetLocked forgets the learned relays that have not been used for a while. One that has
// turned out to be another relay stays until then, so that it is not learned again.
func (s *relayList) forgetLocked(now time.Time) {
	s.entries = slices.DeleteFunc(s.entries, func(e *relayEntry) bool {
		if e.learned.IsZero() || e.busy {
			return false
		}
		if s.endpoint.relays.isUsed(e.relay) {
			e.learned = now
		}
		return now.Sub(e.learned) >= learnedFor
	})
}

// isNeeded says whether a connection, a dial or the mailbox may need another relay.
func (s *relayList) isNeeded(now time.Time) bool {
	s.mu.Lock()
	recent := now.Sub(s.dialed) < wantedFor || now.Sub(s.wanted) < wantedFor
	s.mu.Unlock()
	return recent || s.endpoint.mailbox.hasWaiters() || s.endpoint.hasConns()
}

// hasConns says whether the endpoint has a connection.
func (e *Endpoint) hasConns() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.conns) > 0
}
