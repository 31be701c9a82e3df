package p2p

import (
	"net/netip"
	"slices"
	"time"
)

// ownAddresses are the addresses of this host that the peer has been told. Used only
// by the pathfinder's run goroutine.
type ownAddresses struct {
	conn     *Conn
	locals   *localAddresses
	named    []candidate
	numbers  []uint64 // the sequence numbers of named
	sequence uint64   // the last one used
}

// announce tells the peer what has changed since the last call. It returns true if
// something has, except for the first time.
func (o *ownAddresses) announce() (changed bool) {
	own := o.current()
	for i, c := range o.named {
		if !slices.Contains(own, c) {
			o.conn.queueFrame(numbered(frameRemoveAddress, o.numbers[i]))
			changed = true
		}
	}
	var numbers []uint64
	for _, c := range own {
		if i := slices.Index(o.named, c); i >= 0 {
			numbers = append(numbers, o.numbers[i])
			continue
		}
		o.sequence++
		numbers = append(numbers, o.sequence)
		o.conn.queueFrame(addAddress(o.sequence, c))
		changed = true
	}
	first := o.named == nil
	o.named, o.numbers = own, numbers
	return changed && !first
}

// current returns the addresses that the peer may be told, the best first.
func (o *ownAddresses) current() []candidate {
	own := o.locals.all()
	if seen := o.conn.link.observedUDP(); seen.IsValid() {
		own = withObserved(own, seen)
	}
	accept := o.conn.endpoint.conf.LocalCandidates
	own = slices.DeleteFunc(own, func(c candidate) bool {
		return !isUnicast(c.addr) || accept != nil && !accept(c.addr.Addr())
	})
	return own[:min(len(own), maxCandidates)]
}

// withObserved moves the address that the relay sees to the front, or adds it there.
func withObserved(own []candidate, seen netip.AddrPort) []candidate {
	first := candidate{ObservedCandidate, seen}
	if i := slices.IndexFunc(own, func(c candidate) bool { return c.addr == seen }); i >= 0 {
		first = own[i]
		own = slices.Delete(own, i, i+1)
	}
	return slices.Insert(own, 0, first)
}

// A peer may name budgetSize addresses in each budgetPeriod, because each is sent
// probes.
const (
	budgetSize   = 4 * maxCandidates
	budgetPeriod = time.Minute
)

// addressBudget counts the addresses that a peer has named in the present period.
type addressBudget struct {
	since time.Time
	spent int
}

// take counts an address. It returns false if it is one too many.
func (b *addressBudget) take(now time.Time) bool {
	if now.Sub(b.since) >= budgetPeriod {
		*b = addressBudget{since: now}
	}
	b.spent++
	return b.spent <= budgetSize
}

// peerAddresses are the addresses that the peer has named. Used only by the
// pathfinder's run goroutine.
type peerAddresses struct {
	conn   *Conn
	list   *checklist
	named  map[uint64]candidate // by sequence number
	budget addressBudget
}

func newPeerAddresses(c *Conn, list *checklist) peerAddresses {
	return peerAddresses{conn: c, list: list, named: make(map[uint64]candidate)}
}

// add takes an ADD_ADDRESS frame. It ignores an address that may not be probed by a
// host with addresses own, and returns false then.
func (p *peerAddresses) add(payload []byte, own []candidate, now time.Time) (bool, error) {
	sequence, c, err := parseAddAddress(payload)
	if err != nil {
		return false, err
	}
	if old, ok := p.named[sequence]; ok && old != c {
		p.forget(sequence)
	}
	if len(p.named) >= maxCandidates || !p.mayProbe(c.addr, own) || !p.budget.take(now) {
		return false, nil
	}
	pair := p.list.add(c, now)
	if pair == nil {
		return false, nil
	}
	pair.candidate, pair.sequence, pair.named = c, sequence, true
	p.named[sequence] = c
	return true, nil
}

// remove takes a REMOVE_ADDRESS frame.
func (p *peerAddresses) remove(payload []byte) error {
	sequence, _, err := cutVarint(payload)
	if err == nil {
		p.forget(sequence)
	}
	return err
}

func (p *peerAddresses) forget(sequence uint64) {
	delete(p.named, sequence)
	p.list.remove(sequence)
}

// mayProbe says whether an address may be probed by a host with addresses own.
func (p *peerAddresses) mayProbe(a netip.AddrPort, own []candidate) bool {
	link := p.conn.link
	if !link.mux.reaches(a.Addr()) || link.isRelay(a) {
		return false
	}
	if allow := p.conn.endpoint.conf.PeerCandidates; allow != nil {
		return isUnicast(a) && allow(a)
	}
	return mayProbe(a, own)
}
