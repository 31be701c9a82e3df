package p2p

import (
	"net/netip"
	"slices"
	"time"
)

// checkDelays are the times between the probes of one address in a round. The first
// probes of both sides open their NATs, so that the following ones get through.
var checkDelays = [...]time.Duration{
	40 * time.Millisecond, 60 * time.Millisecond, 100 * time.Millisecond,
	200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond,
}

// Bounds of a checklist.
const (
	// maxPairs bounds the addresses of the peer that are probed: those that it has
	// named, and those that its probes have come from.
	maxPairs = maxCandidates + 4
	// lastAnswer is how long the answer to the last probe of a round may take.
	lastAnswer = time.Second
)

// pair is an address of the peer, and the results of probing it. The system chooses the
// local address.
type pair struct {
	candidate
	named    bool   // the peer has named the address
	sequence uint64 // of the ADD_ADDRESS frame, if named

	sent     int       // in this round
	next     time.Time // when the next probe is due; zero: none is
	last     time.Time // when the last probe was sent
	answered time.Time // when the last answer came; zero: none has in this round
	rtt      time.Duration
	size     int            // the largest probe that has been answered in this round
	sizing   bool           // large probes have been sent in this round
	observed netip.AddrPort // this host's address as the peer sees it
	err      error          // why the last probe was not sent, or QUIC could not use the address
}

// checklist holds the addresses of the peer that are probed. It sends nothing itself.
type checklist struct{ pairs []*pair }

func newChecklist() *checklist { return &checklist{} }

// find returns the pair with an address, or nil.
func (l *checklist) find(remote netip.AddrPort) *pair {
	for _, p := range l.pairs {
		if p.addr == remote {
			return p
		}
	}
	return nil
}

// add adds an address, to be probed at once if it is new. It returns nil if there are too
// many.
func (l *checklist) add(c candidate, now time.Time) *pair {
	if p := l.find(c.addr); p != nil {
		return p
	}
	if len(l.pairs) >= maxPairs && !l.evict() {
		return nil
	}
	p := &pair{candidate: c, next: now}
	l.pairs = append(l.pairs, p)
	return p
}

// evict removes an address that the peer has not named and that has not answered.
func (l *checklist) evict() bool {
	i := slices.IndexFunc(l.pairs, func(p *pair) bool { return !p.named && p.answered.IsZero() })
	if i < 0 {
		return false
	}
	l.pairs = slices.Delete(l.pairs, i, i+1)
	return true
}

// remove removes an address that the peer has withdrawn.
func (l *checklist) remove(sequence uint64) {
	l.pairs = slices.DeleteFunc(l.pairs, func(p *pair) bool { return p.named && p.sequence == sequence })
}

// restart begins a round: all addresses are probed anew.
func (l *checklist) restart(now time.Time) {
	for _, p := range l.pairs {
		p.sent, p.next, p.answered, p.err, p.size, p.sizing = 0, now, time.Time{}, nil, 0, false
	}
}

// settle brings a round to its end. Addresses that have answered get a few more probes,
// because the other side may need them, and the others none.
func (l *checklist) settle() {
	for _, p := range l.pairs {
		if p.answered.IsZero() || p.sent > 3 {
			p.next = time.Time{}
		}
	}
}

// due returns a pair whose probe is due, or nil and when the next one is. That is zero if
// there is none.
func (l *checklist) due(now time.Time) (*pair, time.Time) {
	var next time.Time
	for _, p := range l.pairs {
		switch {
		case p.next.IsZero():
		case !p.next.After(now):
			return p, time.Time{}
		case next.IsZero() || p.next.Before(next):
			next = p.next
		}
	}
	return nil, next
}

// probed takes note of a probe that was sent in the round.
func (l *checklist) probed(p *pair, now time.Time) {
	if p.next = (time.Time{}); p.sent < len(checkDelays) {
		p.next = now.Add(checkDelays[p.sent])
	}
	p.sent++
	p.last = now
}

// answer takes note of the answer to a ping. It returns the pair, or nil if the address
// is not in the list any more.
func (l *checklist) answer(pong probe, ping sentPing, now time.Time) *pair {
	p := l.find(ping.remote)
	if p == nil {
		return nil
	}
	rtt := now.Sub(ping.at)
	if p.answered.IsZero() || rtt < p.rtt {
		p.rtt = rtt
	}
	p.answered, p.observed, p.size = now, pong.observed, max(p.size, ping.size)
	return p
}

// over says whether all probes of the round have been sent and answered or lost.
func (l *checklist) over(now time.Time) bool {
	for _, p := range l.pairs {
		if !p.next.IsZero() || p.answered.IsZero() && now.Sub(p.last) < lastAnswer {
			return false
		}
	}
	return true
}

// anyAnswered says whether any address has answered in this round.
func (l *checklist) anyAnswered() bool {
	for _, p := range l.pairs {
		if !p.answered.IsZero() {
			return true
		}
	}
	return false
}

// best returns the usable pair with the lowest cost, or nil.
func (l *checklist) best() (best *pair) {
	for _, p := range l.pairs {
		if p.isUsable() && (best == nil || p.better(best)) {
			best = p
		}
	}
	return best
}

// The cost of a path is its round-trip time, with these corrections.
const (
	// lanAdvantage is subtracted for a path within a site.
	lanAdvantage = 5 * time.Millisecond
	// ipv6Bonus is subtracted for IPv6, which has no NAT whose mapping may expire.
	ipv6Bonus = 2 * time.Millisecond
	// narrowPenalty is added for a path that does not carry full packets: it is a tunnel,
	// and there may be a path outside the tunnel.
	narrowPenalty = 10 * time.Millisecond
)

// isUsable says whether QUIC can use the path: it carries packets of 1200 bytes (RFC
// 9000 §14).
func (p *pair) isUsable() bool { return !p.answered.IsZero() && p.size >= baseSize }

// nextSize is the size of the next probe. Probes are small until the address has
// answered, because it may be somebody else's.
func (p *pair) nextSize() int {
	switch {
	case p.answered.IsZero():
		return 0
	case p.size < baseSize:
		return baseSize
	default:
		return fullSize
	}
}

// cost is the round-trip time with the corrections.
func (p *pair) cost() time.Duration {
	cost := p.rtt
	if p.size < fullSize {
		return cost + narrowPenalty
	}
	if kindOf(p.addr.Addr()) == LAN {
		cost -= lanAdvantage
	}
	if p.addr.Addr().Is6() {
		cost -= ipv6Bonus
	}
	return cost
}

func (p *pair) better(than *pair) bool { return p.cost() < than.cost() }

// worthMoving says whether a pair is so much better than the one in use that it is worth
// a migration.
func (p *pair) worthMoving(from *pair) bool {
	return p.cost()+max(from.rtt/5, 3*time.Millisecond) < from.cost()
}

// results returns the results of the probes, for the application.
func (l *checklist) results() []PairResult {
	out := make([]PairResult, 0, len(l.pairs))
	for _, p := range l.pairs {
		r := PairResult{Remote: p.addr, Kind: p.kind, Probes: p.sent, Size: p.size, Err: p.err}
		if !p.answered.IsZero() {
			r.RTT = p.rtt
		}
		out = append(out, r)
	}
	return out
}
