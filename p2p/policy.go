package p2p

import "time"

// relayProven is how long a relay that was lost must be back before a connection that
// prefers it returns.
const relayProven = 3 * time.Second

// announcePolicy tells the peer this side's policy.
func (s *search) announcePolicy() {
	s.conn.queueFrame(numbered(frameWish, uint64(s.policy)))
}

// peerPolicy takes the peer's policy. The one that wants less of the direct path wins.
func (s *search) peerPolicy(theirs PathPolicy) {
	switch {
	case theirs == RelayOnly:
		s.policy = RelayOnly
		s.round = round{}
		if s.phase == probing {
			s.enter(resting)
		}
		s.carrier.report(WhyPolicy)
	case theirs == PreferRelay && s.policy == PreferDirect:
		s.policy = PreferRelay
	}
}

// choose migrates the connection to the best path found, if it is time to and worth
// while. It returns when that is.
func (s *search) choose(now time.Time) time.Time {
	if s.chooseAt.IsZero() || s.chooseAt.After(now) {
		return s.chooseAt
	}
	s.chooseAt = time.Time{}
	best := s.list.best()
	switch {
	case best == nil || s.phase == moving || s.policy == RelayOnly:
	case s.policy == PreferRelay && !s.conn.relayLost.Load():
	case best.addr == s.carrier.remote():
	case s.carrier.isDirect() && !s.isBetter(best):
	case s.carrier.migrate(best.addr):
		s.enter(moving)
	}
	return time.Time{}
}

// isBetter says whether a pair is so much better than the path in use that it is worth
// a migration.
func (s *search) isBetter(p *pair) bool {
	used := s.list.find(s.carrier.remote())
	return used != nil && !used.answered.IsZero() && p.worthMoving(used)
}

// migrated takes the result of a migration.
func (s *search) migrated(m migration, now time.Time) {
	if s.enter(probing); s.policy == RelayOnly {
		s.enter(resting)
	}
	p := s.list.find(m.remote)
	if m.err != nil {
		s.conn.endpoint.log.Debug("migration failed", "remote", m.remote, "err", m.err)
		if p != nil {
			p.answered, p.err = time.Time{}, m.err
			s.unusable = true
		}
		return
	}
	s.carrier.arrive(m.path, p, now)
	s.pause = 0
	s.list.settle()
	s.carrier.prepareRelayPath()
}

// relayChanged takes note that the relay may be lost, or back. A connection that
// prefers a relay that is lost looks for a direct path.
func (s *search) relayChanged(now time.Time) {
	lost := s.conn.relayLost.Load()
	if lost && s.policy == PreferRelay && !s.carrier.isDirect() {
		s.startIfResting(now)
	}
	if !lost {
		s.relaySeen = now
	}
}

// returnToRelay leaves the direct path when the relay is preferred and works again. It
// returns when to look again.
func (s *search) returnToRelay(now time.Time) time.Time {
	if s.policy != PreferRelay || !s.carrier.hasMigrated() || s.phase == moving || s.conn.relayLost.Load() {
		return time.Time{}
	}
	if due := s.relaySeen.Add(relayProven); due.After(now) || !s.carrier.relayPath.isReady() {
		return now.Add(relayProven)
	}
	s.carrier.switchToRelay()
	s.carrier.enter(nil, WhyPolicy, now)
	return time.Time{}
}
