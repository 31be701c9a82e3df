package monitor

import (
	"time"

	"github.com/quicway/quicway/internal/wire"
)

// Bits of the first byte of a short header (RFC 9000 §17.3.1).
const (
	fixedBit = 0x40
	spinBit  = 0x20
)

// minShort is the least that a packet with a short header has besides its ID:
// its first byte, and what header protection takes its sample from (RFC 9001
// §5.4.2).
const minShort = 1 + 4 + 16

// short takes a datagram that begins with a short header, or with nothing of
// QUIC, between endpoints that are known.
func (t *Tracker) short(a *arrival) bool {
	p := t.choose(a)
	r := p.record
	if r.confidence == GoogleQUIC {
		t.count(a, p)
		return true
	}
	from := p.sender(a)
	end := &r.ends[1-from]
	n := int(end.idLen)
	if n < 0 { // nothing was seen that says
		n = 0
	}
	if len(a.payload) < n+minShort {
		t.counters.Bogus++
		return false
	}
	w := &p.ways[from]
	if id := a.payload[1 : 1+n]; n > 0 && !w.id.is(id) {
		if !t.rotate(a, p, from, id) {
			t.counters.Bogus++
			return false
		}
	} else if n == 0 && a.payload[0]&fixedBit == 0 {
		// Without an ID only the fixed bit tells it from what else may use
		// the port.
		t.counters.Bogus++
		return false
	}
	t.count(a, p)
	w.short = true
	t.spin(a, p, from, a.payload[0])
	if r.concluded == 0 && r.answered != 0 && from == wire.Client {
		t.conclude(a, p)
	}
	if p != r.active || !p.validated {
		t.judge(a, p, from)
	}
	return true
}

// choose finds the connection of several whose ID a short header has.
func (t *Tracker) choose(a *arrival) *path {
	f := a.flow
	if len(f.paths) == 1 {
		return f.paths[0]
	}
	if p := f.owner(a.fromA, a.payload[min(1, len(a.payload)):]); p != nil {
		return p
	}
	return f.likely(a.fromA, t.slack)
}

// owner returns the path of the connection that is known to have the ID at the
// beginning of b, or nil.
func (f *flow) owner(fromA bool, b []byte) *path {
	for _, p := range f.paths {
		if p.record.confidence == GoogleQUIC {
			continue // anybody may have sent its version
		}
		end := &p.record.ends[1-p.side(fromA)]
		if n := int(end.idLen); n > 0 && len(b) >= n && (end.has(b[:n]) || end.candidate.is(b[:n])) {
			return p
		}
	}
	return nil
}

// likely returns the path of the connection that a short header without an ID is of,
// or with an ID that nobody knows: one that has not had any since its handshake, after
// which endpoints may change their IDs at once, or else the one that was heard of last.
func (f *flow) likely(fromA bool, slack int64) *path {
	best := f.paths[0]
	for _, p := range f.paths[1:] {
		if p.record.confidence == GoogleQUIC {
			continue // as above
		}
		if best.record.confidence == GoogleQUIC || p.record.talks() && p.likelier(best, fromA, slack) {
			best = p
		}
	}
	return best
}

func (p *path) likelier(than *path, fromA bool, slack int64) bool {
	if x, y := p.expected(fromA), than.expected(fromA); x != y {
		return x
	}
	later := p.seen() - than.seen()
	// Of those that were heard of together, as far as times say, it is the one
	// that sends more.
	return later > slack || later >= -slack && (slack == 0 || p.streak >= than.streak)
}

// expected says whether a side has yet to send its first short header.
func (p *path) expected(fromA bool) bool {
	r := p.record
	return r.confidence >= HandshakeShaped && r.talks() && !p.ways[p.side(fromA)].short
}

// streakPause is the silence that ends a streak.
const streakPause = int64(time.Second)

// hear takes note of packets that have just come.
func (p *path) hear(at int64, packets uint64) {
	if at-p.seen() > streakPause {
		p.streak = 0
	}
	p.streak += packets
}

// rotate takes an ID that is not the one in use. One that the end is known to
// have is; another is a new one of its own once two packets have had it, as long
// as nothing but QUIC begins with such a byte.
func (t *Tracker) rotate(a *arrival, p *path, from wire.Side, id []byte) bool {
	r := p.record
	end := &r.ends[1-from]
	if r.knows(1-from, id) {
		if p.ways[from].id.len > 0 && !r.isOrigID(p.ways[from].id.bytes[:p.ways[from].id.len]) {
			r.rotations++
		}
		p.ways[from].id = idOf(id)
		return true
	}
	if !end.candidate.is(id) {
		if a.payload[0]&fixedBit == 0 || !r.talks() && !r.oneWay(1-from) {
			return false
		}
		end.candidate = idOf(id)
		return true
	}
	r.rotations++
	t.learnID(r, 1-from, end.candidate, a.now)
	p.ways[from].id = end.candidate
	return true
}

// count adds a datagram to a path.
func (t *Tracker) count(a *arrival, p *path) {
	p.hear(a.now, 1)
	w := &p.ways[p.sender(a)]
	if w.packets == 0 {
		w.first = a.now
	}
	w.last = a.now
	w.packets++
	w.bytes += uint64(a.length)
	t.touch(p.record, p, a.now)
}

// spin follows the spin bit, of all round trip and of its halves: an edge that
// goes one way comes back the other (RFC 9312 §3.8.2).
func (t *Tracker) spin(a *arrival, p *path, from wire.Side, first byte) {
	s, back := &p.ways[from].spin, &p.ways[1-from].spin
	before := s.edge
	edge, rtt := s.add(a.now, first&spinBit != 0)
	if edge && before != 0 && back.edge > before {
		s.half = a.now - back.edge
	}
	if rtt == 0 || s.greased() {
		return
	}
	t.emitRTT(p.record, rtt)
}

// emitRTT tells of a round trip by the spin bit, at most once a second.
func (t *Tracker) emitRTT(r *record, rtt int64) {
	if t.wanted.Load() && t.now-r.lastSpinEvent >= int64(time.Second) {
		r.lastSpinEvent = t.now
		t.emit(EventRTT, r, func(e *Event) { e.RTT = Milliseconds(rtt) })
	}
}
