package monitor

import (
	"slices"

	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/wire"
)

// offload is who counts packets that the tracker need not see: the kernel, or
// nobody.
type offload interface {
	// fetch brings what is known of a flow up to date, fetchAll that of all.
	fetch(t *Tracker, key tuple)
	fetchAll(t *Tracker)
	// teach says what the tracker need not see of a flow any more, of which it
	// has just seen a packet, or not.
	teach(t *Tracker, key tuple, seen bool)
	// forget ends a flow: its next packet is seen.
	forget(key tuple)
}

// noOffload is that of a source that shows every packet.
type noOffload struct{}

var _ offload = noOffload{}

func (noOffload) fetch(*Tracker, tuple)       {}
func (noOffload) fetchAll(*Tracker)           {}
func (noOffload) teach(*Tracker, tuple, bool) {}
func (noOffload) forget(tuple)                {}

// lesson is what need not be seen of one direction of a flow: packets of a path.
type lesson struct {
	path    *path // nil: none
	what    datapath.Match
	id      ID
	segment uint16
}

// lessons returns those of a flow, from a to b and back, and whether nothing of
// it need be seen but what begins like a handshake.
func (t *Tracker) lessons(key tuple) (out [2]lesson, ruledOut bool) {
	e := t.flows.peek(key)
	if e == nil {
		return out, t.ruledOut(key)
	}
	p := e.value.busiest()
	for i := range out {
		out[i] = p.lesson(p.side(i == 0))
		if len(e.value.paths) > 1 && !e.value.sole(p, i == 0, out[i].id) {
			out[i] = lesson{}
		}
	}
	return out, false
}

// sole says whether short headers with an ID are a path's and cannot be another's
// between the same endpoints, as [flow.choose] has it.
func (f *flow) sole(p *path, fromA bool, id ID) bool {
	for _, other := range f.paths {
		end := &other.record.ends[1-other.side(fromA)]
		if other == p && !end.has(id.bytes[:id.len]) || other != p && end.resembles(id) {
			return false
		}
	}
	return true
}

// resembles says whether packets with an ID may seem to have one of the end's.
func (e *end) resembles(id ID) bool {
	for i := range e.ids {
		if e.ids[i].resembles(id) {
			return true
		}
	}
	return e.candidate.resembles(id)
}

// resembles says whether one of two IDs begins as all of the other.
func (id *ID) resembles(other ID) bool {
	n := min(id.len, other.len)
	return n > 0 && string(id.bytes[:n]) == string(other.bytes[:n])
}

// teach teaches what a packet has changed: what it says of a connection holds on all
// of its paths.
func (t *Tracker) teach(a *arrival) {
	t.offload.teach(t, a.key, true)
	if a.flow == nil {
		return
	}
	for _, p := range a.flow.paths {
		for _, other := range p.record.paths {
			if other.key != a.key {
				t.offload.teach(t, other.key, false)
			}
		}
	}
}

// side is the one that sends from a, or from b.
func (p *path) side(fromA bool) wire.Side {
	if fromA == p.clientIsA {
		return wire.Client
	}
	return wire.Server
}

// busiest returns the path of the connection that has sent most here.
func (f *flow) busiest() *path {
	best := f.paths[0]
	for _, p := range f.paths[1:] {
		if p.packets() > best.packets() {
			best = p
		}
	}
	return best
}

// lesson says what [Tracker.short] would but count of what a side sends.
func (p *path) lesson(from wire.Side) lesson {
	r, w := p.record, &p.ways[from]
	switch n := r.ends[1-from].idLen; {
	case r.confidence == GoogleQUIC:
		return lesson{path: p, what: datapath.MatchShort}
	case !p.validated || p != r.active && r.flips < maxFlips:
		return lesson{} // it is to be judged
	case from == wire.Client && r.answered != 0 && r.concluded == 0:
		return lesson{} // the next packet concludes the handshake
	case n > 0 && int(w.id.len) != int(n):
		return lesson{} // none has come yet
	case n > 0:
		return lesson{p, datapath.MatchID, w.id, w.segment}
	}
	return lesson{path: p, what: datapath.MatchID}
}

// counted adds what was counted of a flow, and of a path if that is known, without
// being seen.
func (t *Tracker) counted(key tuple, fromA bool, whose *path, n Traffic, last int64) *path {
	t.counters.Packets += n.Packets
	t.counters.Datagrams += n.Packets
	e := t.flows.peek(key)
	if e == nil {
		t.countedSuspect(key, fromA, n, last)
		return nil
	}
	p := e.value.whose(whose)
	r, w := p.record, &p.ways[p.side(fromA)]
	t.counters.Tracked += n.Packets
	if w.packets == 0 {
		w.first = last
	}
	p.hear(last, n.Packets)
	w.short = true
	w.packets += n.Packets
	w.bytes += n.Bytes
	w.last = max(w.last, last)
	if r.flips >= maxFlips && last > r.active.ways[wire.Client].last {
		r.active = p // of several in use at a time the latest
	}
	if t.records.peek(r.number) == r.entry { // it is not being closed
		t.flows.get(key, last)
		t.touch(r, p, max(r.last, last))
	}
	return p
}

// whose returns a path, if it is still there, or else the most likely one.
func (f *flow) whose(p *path) *path {
	if slices.Contains(f.paths, p) {
		return p
	}
	return f.busiest()
}

func (t *Tracker) countedSuspect(key tuple, fromA bool, n Traffic, last int64) {
	t.counters.Other += n.Packets
	e := t.potential.get(key, last)
	if e == nil {
		return
	}
	s := e.value
	w := &s.ways[1]
	if fromA {
		w = &s.ways[0]
	}
	w.packets += n.Packets
	w.bytes += n.Bytes
	s.last = max(s.last, last)
	t.counters.Potential += n.Packets
}

// settle brings a connection up to date.
func (t *Tracker) settle(r *record) {
	for _, p := range r.paths {
		t.offload.fetch(t, p.key)
	}
}

// tick lets time pass where no packet says so.
func (t *Tracker) tick(now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now-t.swept >= sweepEvery {
		t.now = max(t.now, now)
		t.sweep()
	}
}
