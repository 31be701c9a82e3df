package p2p

import (
	"net/netip"
	"slices"
	"time"
)

// Addresses that a peer names are sent probes, so that it may not name too many:
// budgetSize in budgetPeriod.
const (
	budgetSize   = 4 * maxCandidates
	budgetPeriod = time.Minute
)

// budget is what is left of that.
type budget struct {
	since time.Time
	spent int
}

func (b *budget) take(now time.Time) bool {
	if now.Sub(b.since) >= budgetPeriod {
		*b = budget{since: now}
	}
	b.spent++
	return b.spent <= budgetSize
}

// announce tells the peer the addresses that this side has now. If there are others
// than before, all is tried again.
func (f *pathfinder) announce() {
	own := f.locals.all()
	if seen := f.link.observed(); seen.IsValid() {
		own = withObserved(own, seen)
	}
	accept := f.conn.endpoint.conf.LocalCandidates
	own = slices.DeleteFunc(own, func(c candidate) bool {
		return !speakable(c.addr) || accept != nil && !accept(c.addr.Addr())
	})
	own = own[:min(len(own), maxCandidates)]
	news := false
	for i, c := range f.own {
		if !slices.Contains(own, c) {
			f.conn.tell(numbered(frameRemoveAddress, f.numbers[i]))
			news = true
		}
	}
	var numbers []uint64
	for _, c := range own {
		if i := slices.Index(f.own, c); i >= 0 {
			numbers = append(numbers, f.numbers[i])
			continue
		}
		f.sequence++
		numbers = append(numbers, f.sequence)
		f.conn.tell(addAddress(f.sequence, c))
		news = true
	}
	first := f.own == nil
	f.own, f.numbers = own, numbers
	if news && !first {
		f.again(time.Now())
	}
}

// withObserved puts the address that the relay sees first, whatever else it is.
func withObserved(own []candidate, seen netip.AddrPort) []candidate {
	first := candidate{ObservedCandidate, seen}
	if hasAddr(own, seen) {
		i := slices.IndexFunc(own, func(c candidate) bool { return c.addr == seen })
		first = own[i]
		own = slices.Delete(own, i, i+1)
	}
	return slices.Insert(own, 0, first)
}

func hasAddr(all []candidate, addr netip.AddrPort) bool {
	return slices.ContainsFunc(all, func(c candidate) bool { return c.addr == addr })
}

// wish tells the peer what this side's policy is.
func (f *pathfinder) wish() {
	f.conn.tell(numbered(frameWish, uint64(f.policy)))
}

// frame acts on what the peer says.
func (f *pathfinder) frame(fr frame) {
	var err error
	switch fr.kind {
	case frameAddAddress:
		err = f.add(fr.payload)
	case frameRemoveAddress:
		err = f.remove(fr.payload)
	case framePunchMeNow:
		err = f.punch(fr.payload)
	case frameWish:
		err = f.wished(fr.payload)
	}
	if err != nil {
		_ = f.conn.CloseWithError(CodeHandshake, err.Error())
	}
}

// add takes an address of the peer's. One that may not be probed is ignored.
func (f *pathfinder) add(payload []byte) error {
	sequence, c, err := parseAddAddress(payload)
	if err != nil {
		return err
	}
	now := time.Now()
	if old, ok := f.named[sequence]; ok && old != c {
		delete(f.named, sequence)
		f.list.remove(sequence)
	}
	if len(f.named) >= maxCandidates || !f.allowed(c.addr) || !f.budget.take(now) {
		return nil
	}
	p := f.list.add(c, now)
	if p == nil {
		return nil
	}
	p.candidate, p.sequence, p.named = c, sequence, true
	f.named[sequence] = c
	if !f.round.running {
		f.start(now)
	}
	return nil
}

// allowed says whether an address may be probed.
func (f *pathfinder) allowed(a netip.AddrPort) bool {
	if !f.link.mux.reaches(a.Addr()) || f.link.isRelay(a) {
		return false
	}
	if allow := f.conn.endpoint.conf.PeerCandidates; allow != nil {
		return speakable(a) && allow(a)
	}
	return mayProbe(a, f.own)
}

func (f *pathfinder) remove(payload []byte) error {
	sequence, _, err := cutVarint(payload)
	if err == nil {
		delete(f.named, sequence)
		f.list.remove(sequence)
	}
	return err
}

// punch begins a round with the peer, who has begun one.
func (f *pathfinder) punch(payload []byte) error {
	_, _, err := cutVarint(payload)
	if now := time.Now(); err == nil && now.Sub(f.round.began) > quiet {
		f.start(now)
	}
	return err
}

func (f *pathfinder) wished(payload []byte) error {
	n, _, err := cutVarint(payload)
	if err != nil {
		return err
	}
	switch theirs := PathPolicy(min(n, 0xff)); {
	case theirs == RelayOnly:
		f.policy = RelayOnly
		f.round = round{}
		f.change(WhyPolicy)
	case theirs == PreferRelay && f.policy == PreferDirect:
		f.policy = PreferRelay
	}
	return nil
}
