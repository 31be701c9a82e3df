package monitor

import (
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/internal/decap"
	"github.com/quicway/quicway/internal/wire"
)

// sweepEvery is how often, by the packets' clock, the tables are swept.
const sweepEvery = int64(time.Second)

// handshakeIdle ends the reading of a handshake that does not go on.
const handshakeIdle = int64(30 * time.Second)

// Tracker sorts packets into connections. It may be used concurrently, but
// packets come one at a time, in the order of their capture.
type Tracker struct {
	conf   Config
	wanted atomic.Bool // somebody reads events

	// mu guards the following.
	mu           sync.Mutex
	now          int64 // the latest packet's time
	swept        int64
	numbers      uint64
	records      table[uint64, *record]
	attempts     table[uint64, *record] // those with a handshake being read
	flows        table[tuple, *flow]
	ids          table[ID, *owners]
	destinations table[endpoint, *destination]
	sources      table[sourceKey, *talkers]
	potential    table[tuple, *suspect]
	lengths      [2]uint32 // of the IDs of either side, ever: a bit each
	counters     counters
	datagram     decap.Datagram
	plain        []byte // room for what is in an Initial
	padded       []byte // room for a datagram of which the end was not captured
	pending      []Event
	offload      offload
	slack        int64 // by which times may be wrong
}

// flow is what is on a pair of endpoints: mostly one connection.
type flow struct{ paths []*path }

// owner is whose an ID is: packets with it go to that side of the record.
type owner struct {
	record *record
	side   wire.Side
}

type owners struct{ list []owner }

// destination is an endpoint that servers answer at.
type destination struct {
	lengths     [2]uint32 // of the IDs of either side: a bit each
	connections uint64
}

// talkers are the connections from a source to a destination, the latest last.
type talkers struct {
	records []*record
	crowded bool // there were others
}

// NewTracker makes a tracker without connections. It returns an error that wraps
// ErrConfig.
func NewTracker(conf *Config) (*Tracker, error) {
	t := &Tracker{conf: conf.withDefaults(), offload: noOffload{}}
	if err := t.conf.validate(); err != nil {
		return nil, err
	}
	t.plain = make([]byte, 0, 2*wire.MaxDatagram)
	n := t.conf.MaxConnections
	t.records.init(n, func(e *entry[uint64, *record], why Reason) { t.closed(e.value, why) })
	t.attempts.init(t.conf.MaxHandshakes, func(e *entry[uint64, *record], why Reason) {
		if why == Evicted {
			t.counters.HandshakesSkipped++
		}
		e.value.attempt = nil
	})
	t.flows.init(2*n, func(e *entry[tuple, *flow], why Reason) { t.flowGone(e.key, e.value, why) })
	t.ids.init(8*n, nil)
	t.destinations.init(2*n, nil)
	t.sources.init(4*n, nil) // three of each client, and one of each server
	t.potential.init(max(n/2, 1), func(e *entry[tuple, *suspect], _ Reason) { t.offload.forget(e.key) })
	return t, nil
}

// Packet takes a packet. The tracker keeps nothing of p.Data.
func (t *Tracker) Packet(p *Packet) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counters.Packets++
	if why := decap.UDP(decap.LinkType(p.Link), p.Data, &t.datagram); why != decap.Found {
		t.counters.unread[why]++
		return
	}
	a := arrival{
		now:       t.clock(p.Time),
		datagram:  &t.datagram,
		payload:   t.datagram.Payload,
		length:    t.datagram.Length,
		direction: p.Direction,
		iface:     p.Interface,
	}
	t.now = a.now
	if t.now-t.swept >= sweepEvery {
		t.sweep()
	}
	a.key, a.fromA = tupleOf(&t.datagram)
	t.offload.fetch(t, a.key)
	e := t.flows.get(a.key, a.now)
	if e != nil {
		a.flow = e.value
	}
	t.segments(&a, p.SegmentSize)
	t.teach(&a)
}

// maxBackwards is how far the clock of a capture goes back because packets of
// several interfaces are out of order. What is more was a step, or the packets
// before it had a wrong time.
const maxBackwards = int64(time.Minute)

// clock returns the time of a packet, which does not go back a little, and is
// never 0, which stands for none. What has no time came with what was before it.
func (t *Tracker) clock(at time.Time) int64 {
	if at.IsZero() {
		return max(t.now, 1)
	}
	now := max(at.UnixNano(), 1)
	if now < t.now && t.now-now <= maxBackwards {
		return t.now
	}
	if now < t.swept {
		t.swept = now
	}
	return now
}

// arrival is a datagram being looked at.
type arrival struct {
	now       int64
	datagram  *decap.Datagram
	key       tuple
	fromA     bool
	payload   []byte
	length    int
	direction Direction
	iface     int
	flow      *flow // nil: the endpoints are new
}

// one takes a datagram of a single sending.
func (t *Tracker) one(a *arrival) {
	t.counters.Datagrams++
	if len(a.payload) == 0 {
		t.counters.Other++
		return
	}
	tracked := false
	switch long := wire.IsLong(a.payload[0]); {
	case long:
		tracked = t.long(a)
	case a.flow != nil:
		tracked = t.short(a)
	default:
		tracked = t.stray(a)
	}
	if tracked {
		t.counters.Tracked++
	} else {
		t.counters.Other++
	}
}

// sweep drops what has been idle.
func (t *Tracker) sweep() {
	t.swept = t.now
	t.offload.fetchAll(t)
	before := t.now - int64(t.conf.Idle)
	t.attempts.expire(t.now - handshakeIdle)
	t.records.expire(before)
	t.flows.expire(before)
	t.destinations.expire(before)
	t.sources.expire(before)
	t.potential.expire(before)
	t.promote()
}

// touch marks a record and the IDs it uses as alive. Most calls do nothing.
func (t *Tracker) touch(r *record, p *path, now int64) {
	r.last = now
	if now-r.entry.seen < touchAfter {
		return
	}
	t.records.touch(r.entry, now)
	for side := range p.ways {
		if id := p.ways[side].id; id.len > 0 {
			t.ids.get(id, now)
		}
	}
	t.sources.get(sourceKey{anyPort(p.client), p.server}, now)
	t.sources.get(sourceKey{client: p.client}, now)
	t.sources.get(sourceKey{server: p.server}, now)
	t.sources.get(sourceKey{anyPort(p.client), anyPort(p.server)}, now)
	t.destinations.get(p.server, now)
}

// Connections yields all connections that are kept when it begins, the latest seen
// first, each as it is when its turn comes; those that have gone by then are left
// out. Packets are taken meanwhile.
func (t *Tracker) Connections() iter.Seq[Connection] {
	return func(yield func(Connection) bool) {
		for _, e := range t.kept() {
			if c, ok := t.copy(e); ok && !yield(c) {
				return
			}
		}
	}
}

// kept returns all records.
func (t *Tracker) kept() []*entry[uint64, *record] {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.offload.fetchAll(t)
	t.promote()
	return slices.AppendSeq(make([]*entry[uint64, *record], 0, t.records.len()), t.records.all())
}

// copy returns what is known of a connection, if it is still kept.
func (t *Tracker) copy(e *entry[uint64, *record]) (c Connection, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.records.peek(e.key) != e {
		return c, false
	}
	return e.value.snapshot(), true
}

// Stats returns the counters.
func (t *Tracker) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.offload.fetchAll(t)
	return t.statsLocked()
}

// settleAll brings all that is kept up to date.
func (t *Tracker) settleAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.offload.fetchAll(t)
}

// take returns the events since the last call.
func (t *Tracker) take() []Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.pending) == 0 {
		return nil
	}
	out := t.pending
	t.pending = nil
	return out
}

// emit adds an event, if anybody wants it.
func (t *Tracker) emit(kind EventKind, r *record, fill func(*Event)) {
	if !t.wanted.Load() {
		return
	}
	e := Event{Kind: kind, Time: time.Unix(0, t.now).UTC(), Connection: r.snapshot()}
	if fill != nil {
		fill(&e)
	}
	t.pending = append(t.pending, e)
}

// String says how much there is.
func (t *Tracker) String() string {
	s := t.Stats()
	return fmt.Sprintf("%d connections in %d packets", s.Tables["connections"].Entries, s.Packets)
}
