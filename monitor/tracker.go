package monitor

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/decap"
	"github.com/quicway/quicway/internal/wire"
)

// handshakeIdle is the silence after which a handshake is no longer read.
const handshakeIdle = int64(30 * time.Second)

// Tracker sorts packets into QUIC connections. Its methods may be called
// concurrently. Call [Tracker.Packet] in the order in which the packets were
// captured.
type Tracker struct {
	conf   Config
	events events

	// mu guards the following, and the pending events.
	mu       sync.Mutex
	clock    clock
	index    index
	counters counters
	initials initialReader
	long     longMatcher
	short    shortMatcher
	moves    openMoves
	offload  *offload // nil: the source reports every packet
	datagram decap.Datagram
	padded   []byte // scratch space for datagrams that were captured in part
}

// NewTracker returns a tracker without connections. A nil conf is the zero
// [Config]. The error wraps [ErrConfig].
func NewTracker(conf *Config) (*Tracker, error) { return newOffloadedTracker(conf, nil) }

// newOffloadedTracker is NewTracker for a source whose flows the kernel counts. flows is
// nil if the source reports every packet.
func newOffloadedTracker(conf *Config, flows *datapath.Monitor) (*Tracker, error) {
	t := &Tracker{conf: conf.withDefaults()}
	if err := t.conf.validate(); err != nil {
		return nil, err
	}
	t.events.clock, t.events.seed = &t.clock, t.conf.CommunityIDSeed
	t.events.filter = t.conf.Filter
	if flows != nil {
		t.offload = newOffload(flows, &t.index, &t.counters, &t.events)
		t.index.slack = kernelSlack
	}
	t.index.init(&t.conf, &t.counters, hooks{
		closing: func(c *connection, why Reason) {
			t.offload.settle(c)
			t.moves.forget(c)
			t.events.emit(EventClosed, c, func(e *Event) {
				if e.Reason = why; why == Idle {
					e.Connection.endIdle()
				}
			})
		},
		flowChanged: func(key tuple) { t.offload.updateRules(key, false) },
		flowGone:    func(key tuple) { t.offload.forget(key) },
	})
	t.initials = initialReader{
		index: &t.index, counters: &t.counters, events: &t.events, plain: make([]byte, 0, 2*wire.MaxDatagram),
	}
	t.long = longMatcher{index: &t.index, counters: &t.counters, events: &t.events, initials: &t.initials}
	t.short = shortMatcher{index: &t.index, counters: &t.counters, events: &t.events, clock: &t.clock, offload: t.offload, moves: &t.moves}
	t.moves = openMoves{index: &t.index, events: &t.events, offload: t.offload}
	return t, nil
}

// Packet adds a packet. The tracker does not keep p or p.Data.
func (t *Tracker) Packet(p *Packet) { t.packets(p, nil) }

// maxBatch is how many packets are added at most while the tracker is locked once.
const maxBatch = 64

// packets adds a packet, and those after it that next can read without waiting, up to the first
// event. It reports whether there are events. next may be nil.
func (t *Tracker) packets(p *Packet, next func(*Packet) bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.packetLocked(p)
	for n := 1; n < maxBatch && next != nil && len(t.events.pending) == 0 && next(p); n++ {
		t.packetLocked(p)
	}
	return len(t.events.pending) > 0
}

// packetLocked adds a packet.
func (t *Tracker) packetLocked(p *Packet) {
	t.counters.Packets++
	if why := decap.UDP(decap.LinkType(p.Link), p.Data, &t.datagram); why != decap.Found {
		t.counters.unread[why]++
		return
	}
	t.clock.packet(p.Time)
	a := arrival{
		now:       t.clock.now,
		datagram:  &t.datagram,
		payload:   t.datagram.Payload,
		length:    t.datagram.Length,
		direction: p.Direction,
		iface:     p.Interface,
	}
	if t.clock.sweepDue(a.now) {
		t.sweep()
	}
	if t.moves.due(a.now) {
		t.moves.judge(a.now, false)
	}
	a.key, a.fromA = tupleOf(&t.datagram)
	if t.offload != nil {
		t.offload.fetch(a.key)
	}
	a.hash = t.index.hasher.tuple(&a.key)
	if e := t.index.flows.find(&a.key, a.hash); e != nil {
		t.index.flows.touch(e, a.now)
		a.flow = &e.value
	}
	t.segments(&a, p.SegmentSize)
	if t.offload != nil {
		t.offload.packetHandled(&a)
	}
}

// arrival is a datagram that is being classified.
type arrival struct {
	now       int64
	datagram  *decap.Datagram
	key       tuple
	hash      uint32 // of key, in the tables of flows and of candidates
	fromA     bool   // sent from key.a
	payload   []byte
	length    int // of the payload on the wire; payload may have been captured in part
	direction Direction
	iface     int
	flow      *flow       // nil: no connection is known between the endpoints
	conn      *connection // for which it was counted; or nil
}

// classify counts one datagram for the connection that it belongs to.
func (t *Tracker) classify(a *arrival) {
	t.counters.Datagrams++
	if len(a.payload) == 0 {
		t.index.countOther(a.key, 1)
		return
	}
	tracked, long := false, wire.IsLong(a.payload[0])
	a.conn = nil
	switch {
	case long:
		tracked = t.longHeader(a)
	case a.flow != nil:
		tracked = t.shortHeader(a)
	default:
		tracked = t.unknownFlow(a)
	}
	if tracked {
		t.counters.Tracked++
	} else {
		t.index.countOther(a.key, 1)
	}
	if a.conn != nil {
		t.index.recount(a.conn, long)
	}
}

// count adds a datagram to a path.
func (t *Tracker) count(a *arrival, p *path) {
	p.add(p.sender(a), a.now, a.length, a.datagram.ECN)
	t.index.touch(p.conn, p, a.now)
	a.conn = p.conn
}

// countFound adds a datagram to its path, if one was found.
func (t *Tracker) countFound(a *arrival, p *path) bool {
	if p == nil {
		return false
	}
	t.count(a, p)
	return true
}

// sweep removes what has been idle for too long.
func (t *Tracker) sweep() {
	t.clock.swept = t.clock.now
	t.offload.fetchAll()
	t.index.expire(t.clock.now-int64(t.conf.Idle), t.clock.now-handshakeIdle)
	t.index.listen(t.clock.now)
	t.short.openPotential()
}

// tick advances the clock while no packets arrive.
func (t *Tracker) tick(now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.clock.sweepDue(now) {
		t.clock.now = max(t.clock.now, now)
		t.sweep()
	}
}

// Connections yields the connections that [Config.Filter] selects and that are kept when the loop begins, the
// one seen last first. Each is a copy made when its turn comes. Connections that
// have been removed by then are left out. The tracker is not locked while the
// loop's body runs.
func (t *Tracker) Connections() iter.Seq[Connection] {
	return func(yield func(Connection) bool) { t.each(t.kept(), yield) }
}

// ByNumber is [Tracker.Connections] in the order of [Connection.Number], which is the order in which
// the connections were seen first.
func (t *Tracker) ByNumber() iter.Seq[Connection] {
	return func(yield func(Connection) bool) {
		kept := t.kept()
		slices.SortFunc(kept, func(a, b *entry[uint64, *connection]) int { return cmp.Compare(a.key, b.key) })
		t.each(kept, yield)
	}
}

// each yields copies of connections.
func (t *Tracker) each(entries []*entry[uint64, *connection], yield func(Connection) bool) {
	for _, e := range entries {
		if c, ok := t.copy(e); ok && !yield(c) {
			return
		}
	}
}

// kept returns the entries of all connections.
func (t *Tracker) kept() []*entry[uint64, *connection] {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.offload.fetchAll()
	t.short.openPotential()
	t.moves.judge(t.clock.now, true)
	connections := &t.index.connections
	return slices.AppendSeq(make([]*entry[uint64, *connection], 0, connections.len()), connections.all())
}

// copy returns a copy of a connection. ok is false if it has been removed, or the filter does not
// select it.
func (t *Tracker) copy(e *entry[uint64, *connection]) (c Connection, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.index.connections.peek(e.key) != e || !e.value.selectedBy(t.conf.Filter) {
		return c, false
	}
	return e.value.snapshot(t.clock.now, t.conf.CommunityIDSeed), true
}

// Stats returns the counters.
func (t *Tracker) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.offload.fetchAll()
	t.index.listen(t.clock.now)
	out := t.counters.stats()
	t.index.addStats(&out)
	out.Tables["open_moves"] = TableStats{Entries: len(t.moves.list), Limit: maxOpenMoves}
	return out
}

// settle adds what the kernel has counted so far. No packets come any more.
func (t *Tracker) settle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.offload.fetchAll()
	for e := range t.index.connections.all() {
		t.index.endHandshake(e.value)
	}
}

// take returns the events since the last call.
func (t *Tracker) take() []Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.events.take()
}

// String returns the number of connections and of packets.
func (t *Tracker) String() string {
	s := t.Stats()
	return fmt.Sprintf("%d connections in %d packets", s.Tables["connections"].Entries, s.Packets)
}
