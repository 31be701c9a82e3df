package monitor

import (
	"slices"
	"time"

	"github.com/quicway/quicway/internal/wire"
)

// open makes a record that begins on the arrival's endpoints.
func (t *Tracker) open(a *arrival, client, server endpoint, c Confidence, evidence string) *path {
	t.numbers++
	r := &record{
		number: t.numbers, confidence: c, evidence: evidence,
		first: a.now, last: a.now, iface: a.iface,
	}
	r.ends[wire.Client].idLen, r.ends[wire.Server].idLen = -1, -1
	if a.direction != DirectionUnknown {
		if r.direction = a.direction; a.datagram.Src != client {
			r.direction = Inbound + Outbound - a.direction
		}
	}
	r.entry = t.records.put(r.number, r, a.now)
	p := t.addPath(a, r, client, server)
	p.validated = true
	r.active = p
	t.learnServer(p, a.now)
	t.potential.remove(a.key)
	return p
}

// addPath adds a pair of endpoints to a record.
func (t *Tracker) addPath(a *arrival, r *record, client, server endpoint) *path {
	if len(r.paths) >= maxPaths {
		t.counters.PathOverflow++
		t.removePath(r.spare())
	}
	p := &path{record: r, key: a.key, client: client, server: server, first: a.now}
	p.clientIsA = a.key.a == client
	r.paths = append(r.paths, p)
	// The flow that the arrival came with is gone if its only connection has
	// made room for this one.
	if e := t.flows.peek(a.key); e != nil {
		a.flow = e.value
	} else {
		a.flow = &flow{}
		t.flows.put(a.key, a.flow, a.now)
	}
	if len(a.flow.paths) >= maxShared {
		t.counters.PathOverflow++
		t.detach(a.flow.spare(a.now))
	}
	a.flow.paths = append(a.flow.paths, p)
	return p
}

// spare returns the path that a record misses least: the oldest that was never
// validated, or else the oldest that is not in use.
func (r *record) spare() *path {
	var oldest *path
	for _, p := range r.paths {
		if p == r.active {
			continue
		}
		if oldest == nil || !p.validated && oldest.validated || p.validated == oldest.validated && p.seen() < oldest.seen() {
			oldest = p
		}
	}
	return oldest
}

func (p *path) seen() int64 { return max(p.ways[0].last, p.ways[1].last) }

func (p *path) packets() uint64 { return p.ways[0].packets + p.ways[1].packets }

// deserted is how long a connection has been silent that shares its endpoints
// with others and is over, most likely: a client that uses one socket for one
// connection after another has told nobody of their ends.
const deserted = int64(10 * time.Second)

// spare returns the path that is missed least between two endpoints: that of
// the connection which has been silent for longest, if it is over, or else of
// the one that has sent least: Initials in others' names drive out each other.
func (f *flow) spare(now int64) *path {
	oldest, least := f.paths[0], f.paths[0]
	for _, p := range f.paths[1:] {
		if p.seen() < oldest.seen() {
			oldest = p
		}
		if p.packets() < least.packets() {
			least = p
		}
	}
	if now-oldest.seen() > deserted {
		return oldest
	}
	return least
}

// removePath takes a path from its record and its flow.
func (t *Tracker) removePath(p *path) {
	t.leaveRecord(p)
	e := t.flows.peek(p.key)
	if e == nil {
		return
	}
	f := e.value
	if i := slices.Index(f.paths, p); i >= 0 {
		f.paths = slices.Delete(f.paths, i, i+1)
	}
	if len(f.paths) == 0 {
		t.flows.remove(p.key)
		t.offload.forget(p.key)
	} else {
		t.offload.teach(t, p.key, false)
	}
}

// leaveRecord takes a path from its record, and what leads from its endpoints
// to the record, unless another path has the same.
func (t *Tracker) leaveRecord(p *path) {
	r := p.record
	i := slices.Index(r.paths, p)
	if i < 0 {
		return
	}
	r.paths = slices.Delete(r.paths, i, i+1)
	if r.active == p && len(r.paths) > 0 {
		r.active = r.paths[0]
	}
	for _, key := range p.talks() {
		if !slices.ContainsFunc(r.paths, func(other *path) bool {
			keys := other.talks()
			return slices.Contains(keys[:], key)
		}) {
			t.forgetTalker(key, r)
		}
	}
}

// detach removes a path for want of room, and its record if it was the last.
func (t *Tracker) detach(p *path) {
	if len(p.record.paths) > 1 {
		t.removePath(p)
		return
	}
	t.records.evicted++
	t.records.drop(p.record.entry, Evicted)
}

// flowGone is called when the table has forgotten a flow.
func (t *Tracker) flowGone(key tuple, f *flow, why Reason) {
	defer t.offload.forget(key)
	for _, p := range slices.Clone(f.paths) {
		r := p.record
		switch {
		case len(r.paths) > 1:
			t.leaveRecord(p)
		case t.records.peek(r.number) != nil:
			t.records.drop(r.entry, why)
		}
	}
}

// closed undoes all that leads to a record.
func (t *Tracker) closed(r *record, why Reason) {
	t.settle(r)
	t.emit(EventClosed, r, func(e *Event) { e.Reason = why })
	t.attempts.remove(r.number)
	for side := range r.ends {
		for _, id := range r.ends[side].ids {
			t.disown(id, r)
		}
	}
	for _, id := range r.origIDs {
		t.disown(id, r)
	}
	for _, p := range slices.Clone(r.paths) {
		t.removePath(p)
	}
}

// talks returns the keys that a path's record is found by in sources.
func (p *path) talks() [4]sourceKey {
	return [4]sourceKey{
		{server: p.server},
		{anyPort(p.client), p.server},
		{client: p.client},
		{anyPort(p.client), anyPort(p.server)},
	}
}

// learnServer notes who talks to whom, and what IDs look like there.
func (t *Tracker) learnServer(p *path, now int64) {
	if p.record.confidence < MidFlow {
		return
	}
	e := t.destinations.get(p.server, now)
	if e == nil {
		e = t.destinations.put(p.server, &destination{}, now)
	}
	if p == p.record.paths[0] {
		e.value.connections++
	}
	for side, end := range p.record.ends {
		if end.idLen >= 0 {
			e.value.lengths[side] |= 1 << end.idLen
		}
	}
	for _, key := range p.talks() {
		t.addTalker(key, p.record, now)
	}
}

func (t *Tracker) addTalker(key sourceKey, r *record, now int64) {
	e := t.sources.get(key, now)
	if e == nil {
		e = t.sources.put(key, &talkers{}, now)
	}
	if slices.Contains(e.value.records, r) {
		return
	}
	if len(e.value.records) >= maxOwners {
		e.value.records = slices.Delete(e.value.records, 0, 1)
		e.value.crowded = true
	}
	e.value.records = append(e.value.records, r)
}

func (t *Tracker) forgetTalker(key sourceKey, r *record) {
	e := t.sources.peek(key)
	if e == nil {
		return
	}
	if i := slices.Index(e.value.records, r); i >= 0 {
		e.value.records = slices.Delete(e.value.records, i, i+1)
	}
	if len(e.value.records) == 0 {
		t.sources.remove(key)
	}
}

// learnID notes that packets with an ID go to a side of a record.
func (t *Tracker) learnID(r *record, side wire.Side, id ID, now int64) {
	end := &r.ends[side]
	end.idLen = int8(id.len)
	t.lengths[side] |= 1 << id.len
	if e := t.destinations.peek(r.paths[0].server); e != nil {
		e.value.lengths[side] |= 1 << id.len
	}
	if id.len == 0 || end.has(id.bytes[:id.len]) {
		return
	}
	if len(end.ids) >= maxRecordIDs {
		t.counters.IDOverflow++
		t.disown(end.ids[0], r)
		end.ids = slices.Delete(end.ids, 0, 1)
	}
	end.ids = append(end.ids, id)
	t.own(r, side, id, now)
}

// learnOrigID notes the ID that a client has drawn for the server, or a Retry
// has given.
func (t *Tracker) learnOrigID(r *record, id ID, now int64) {
	if r.isOrigID(id.bytes[:id.len]) {
		return
	}
	if len(r.origIDs) >= maxOrigIDs {
		t.counters.IDOverflow++
		return
	}
	r.origIDs = append(r.origIDs, id)
	t.own(r, wire.Server, id, now)
}

func (t *Tracker) own(r *record, side wire.Side, id ID, now int64) {
	e := t.ids.get(id, now)
	if e == nil {
		e = t.ids.put(id, &owners{}, now)
	}
	for _, o := range e.value.list {
		if o.record == r {
			return
		}
	}
	if len(e.value.list) > 0 {
		t.counters.Conflicts++
	}
	if len(e.value.list) < maxOwners { // whoever had it first stays
		e.value.list = append(e.value.list, owner{r, side})
	}
}

func (t *Tracker) disown(id ID, r *record) {
	e := t.ids.peek(id)
	if e == nil {
		return
	}
	e.value.list = slices.DeleteFunc(e.value.list, func(o owner) bool { return o.record == r })
	if len(e.value.list) == 0 {
		t.ids.remove(id)
	}
}
