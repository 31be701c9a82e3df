package p2p

import (
	"net/netip"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// Timing of rounds.
const (
	// gatherTime is how long other addresses may take to answer after the first one,
	// before a path is chosen.
	gatherTime = 15 * time.Millisecond
	// Rounds that find nothing are repeated after firstPause, then after twice as
	// long each time, up to lastPause.
	firstPause = 5 * time.Second
	lastPause  = 5 * time.Minute
	// lostPause is the pause while the relay is lost, too.
	lostPause = time.Second
	// minRoundAge is how old a round must be before the peer's wish restarts it.
	minRoundAge = time.Second
	// silentAfter is how long a peer may take to name its addresses.
	silentAfter = 10 * time.Second
)

// phase says how far the search for a direct path is.
type phase uint8

const (
	resting phase = iota // no round is running
	probing              // a round is running: probes are sent to the peer's addresses
	moving               // at the dialer: QUIC validates the path that a round has found
)

// search looks for a direct path, by rounds of probes. It goes on when there is one,
// as long as a better one may be found. Used only by the pathfinder's run goroutine.
type search struct {
	conn    *Conn
	list    *checklist
	pinger  *pinger
	carrier *carrier

	policy  PathPolicy // what both sides agree on
	phase   phase
	round             // the present round, or the last one
	started time.Time // when the search began; zero once the peer's silence has been reported
	// relaySeen is when the relay was known to work last.
	relaySeen time.Time
}

// round is one attempt to find a direct path.
type round struct {
	number   uint64
	began    time.Time
	next     time.Time     // when the next round begins by itself; zero: never
	pause    time.Duration // before the next round
	chooseAt time.Time     // when a path is to be chosen; zero: not yet
	unusable bool          // QUIC has failed at an address that has answered probes
}

func newSearch(c *Conn, list *checklist, p *pinger, carrier *carrier) search {
	return search{conn: c, list: list, pinger: p, carrier: carrier, policy: c.endpoint.conf.Policy}
}

// enter is the only place where the phase changes.
func (s *search) enter(p phase) { s.phase = p }

// start begins a round. Both sides probe at the same time. A round that is running
// begins anew.
func (s *search) start(now time.Time) {
	if s.policy == RelayOnly {
		return
	}
	if s.phase == resting {
		s.conn.counters.attempt()
		s.enter(probing)
	}
	s.number++
	s.began, s.next, s.unusable = now, time.Time{}, false
	s.list.restart(now)
}

// startIfResting begins a round unless one is running.
func (s *search) startIfResting(now time.Time) {
	if s.phase == resting {
		s.start(now)
	}
}

// restart begins a round at this side's wish, and asks the peer to do the same.
func (s *search) restart(now time.Time) {
	s.pause = 0
	s.start(now)
	s.conn.queueFrame(numbered(framePunchMeNow, s.number))
}

// join begins a round with the peer, which has begun one.
func (s *search) join(now time.Time) {
	if now.Sub(s.began) > minRoundAge {
		s.start(now)
	}
}

// begin begins the next round if it is due. It returns when that is.
func (s *search) begin(now time.Time) time.Time {
	if !s.next.IsZero() && !s.next.After(now) {
		pause := s.pause
		s.restart(now)
		s.pause = pause
	}
	return s.next
}

// mayProbe says whether probes may be sent to the peer's addresses. A peer that wants the
// relay alone gets none, also while the connection moves.
func (s *search) mayProbe() bool { return s.phase != resting && s.policy != RelayOnly }

// sendProbes sends the probes that are due. It returns when the next one is.
func (s *search) sendProbes(now time.Time) time.Time {
	if !s.mayProbe() {
		return time.Time{}
	}
	for {
		p, next := s.list.due(now)
		if p == nil {
			return next
		}
		_, _ = s.pinger.ping(p.addr, p.nextSize(), now)
		s.list.probed(p, now)
	}
}

// pinged takes note of a ping from an address of the peer's.
func (s *search) pinged(from netip.AddrPort, now time.Time) {
	p := s.list.find(from)
	switch {
	case p == nil:
		s.list.add(candidate{ReflexiveCandidate, from}, now)
	case s.phase != resting && p.answered.IsZero() && p.sent < len(checkDelays):
		p.next = now // the peer's NAT lets our packets through by now
	}
	if s.phase == resting && s.carrier.isSilent(now) {
		_, _ = s.pinger.ping(from, 0, now)
	}
}

// answered takes note of the answer to a ping.
func (s *search) answered(pong probe, ping sentPing, now time.Time) {
	p := s.list.answer(pong, ping, now)
	if p == nil || !s.mayProbe() {
		return
	}
	s.probeSizes(p, now)
	if s.conn.link.role == control.Dialer && s.phase == probing && p.isUsable() && s.chooseAt.IsZero() {
		s.chooseAt = now.Add(gatherTime)
	}
}

// probeSizes asks an address that has answered whether it carries QUIC's packets.
func (s *search) probeSizes(p *pair, now time.Time) {
	if p.sizing {
		return
	}
	p.sizing = true
	for _, size := range []int{fullSize, baseSize} {
		_, _ = s.pinger.ping(p.addr, size, now)
	}
}

// end ends a round that is over, or returns when it may be. If the round has found
// nothing, another one follows after a pause.
func (s *search) end(now time.Time) time.Time {
	if s.phase == resting {
		return s.reportSilence(now)
	}
	if !s.list.over(now) || s.phase == moving || !s.chooseAt.IsZero() {
		return now.Add(100 * time.Millisecond)
	}
	s.enter(resting)
	if s.carrier.isDirect() {
		return time.Time{}
	}
	s.pause = min(max(2*s.pause, firstPause), lastPause)
	if s.conn.relayLost.Load() {
		s.pause = lostPause
	}
	if s.conn.link.role == control.Dialer {
		s.next = now.Add(s.pause)
	}
	if len(s.list.pairs) > 0 && s.list.best() == nil {
		why := WhyNoAnswer
		if s.unusable || s.list.anyAnswered() {
			why = WhyNotUsable
		}
		s.carrier.report(why)
	}
	return s.next
}

// reportSilence reports, once, that the peer has named no addresses.
func (s *search) reportSilence(now time.Time) time.Time {
	due := s.started.Add(silentAfter)
	switch {
	case s.started.IsZero() || len(s.list.pairs) > 0:
		return time.Time{}
	case due.After(now):
		return due
	}
	s.started = time.Time{}
	if s.policy != RelayOnly {
		s.carrier.report(WhySilent)
	}
	return time.Time{}
}
