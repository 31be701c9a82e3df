package monitor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/decap"
	"github.com/quicway/quicway/internal/wire"
	"github.com/quicway/quicway/xdp"
)

// kernel is a program that counts flows, and shows what it does not know.
type kernel struct {
	program *datapath.Program
	flows   *datapath.Monitor
	mirrors map[tuple]*mirror // guarded by the tracker's mu
	round   uint64
}

var (
	_ Source  = (*kernel)(nil)
	_ offload = (*kernel)(nil)
)

// behind is how much the times of connections that share endpoints say nothing of
// their order: what the kernel has counted is known when Go asks.
const behind = int64(time.Second)

// mirror is what is known of a flow in the kernel.
type mirror struct {
	born     uint64
	known    [2]datapath.Tally // what was counted of each lane so far
	held     [2]datapath.Tally
	spins    [2]uint32 // packets that its spin bit was followed by
	lessons  [2]lesson
	whole    [2]uint32
	ruledOut bool
	round    uint64 // in which it was last seen
}

// Kernel watches the interfaces that a program is attached to, whose Config has
// Flows. What comes in is seen by XDP, and what leaves by TCX, where there is such
// (xdp.Program.SeesEgress). The kernel counts the packets of connections that are
// known, and shows the tracker the others: what is new, what belongs to a
// handshake, IDs and paths that change. So it costs some tens of nanoseconds for most
// packets. Times of connections are then those of a tick of the kernel, and
// counters follow once a second, or when somebody asks.
//
// The source is the only one of its program: the error wraps xdp.ErrBusy while
// there is another, xdp.ErrConfig without flows, and xdp.ErrUnsupported where
// there is no XDP. Its Close leaves the program as it is.
func Kernel(program *xdp.Program) (Source, error) {
	flows, err := program.Datapath().Monitor()
	if err != nil {
		return nil, fmt.Errorf("monitor: %w", err)
	}
	return &kernel{program: program.Datapath(), flows: flows, mirrors: make(map[tuple]*mirror)}, nil
}

// Read implements [Source].
func (k *kernel) Read(p *Packet) error {
	var s datapath.Sample
	if err := k.flows.Read(&s); err != nil {
		if errors.Is(err, net.ErrClosed) {
			return net.ErrClosed
		}
		return fmt.Errorf("monitor: %w", err)
	}
	*p = Packet{
		Time: s.Time, Interface: s.Interface, Direction: Inbound, Link: LinkEthernet,
		Data: s.Data, Length: s.Length, SegmentSize: s.SegmentSize,
	}
	if s.Outbound {
		p.Direction = Outbound
	}
	return nil
}

// Live implements [Source].
func (k *kernel) Live() bool { return true }

// Dropped implements [Source]: packets that there was no room to show, though most
// of them are counted, and those of which there are too many to read.
func (k *kernel) Dropped() uint64 {
	sights, err := k.program.Stats()
	if err != nil {
		return 0
	}
	return sights[datapath.MonitorRingFull] + sights[datapath.MonitorSkipped] + sights[datapath.MonitorFlowFailed]
}

// Close implements [Source].
func (k *kernel) Close() error { return k.flows.Close() }

// follow lets time pass, by tick, until ctx is done. While there are packets to look
// at, these do.
func (k *kernel) follow(ctx context.Context, tick func(now time.Time)) {
	ticker := time.NewTicker(time.Duration(sweepEvery))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			if !k.flows.Pending() {
				tick(now)
			}
		}
	}
}

func flowKey(key tuple) datapath.FlowKey {
	return datapath.FlowKey{A: key.a.AddrPort(), B: key.b.AddrPort()}
}

// fetch implements [offload].
func (k *kernel) fetch(t *Tracker, key tuple) {
	m := k.mirrors[key]
	if m == nil {
		return
	}
	f, ok, err := k.flows.Lookup(flowKey(key))
	switch {
	case err != nil: // closed: what is known stays
	case !ok: // others needed the room
		delete(k.mirrors, key)
		t.counters.FlowsEvicted++
	default:
		k.apply(t, key, m, &f)
	}
}

// fetchAll implements [offload].
func (k *kernel) fetchAll(t *Tracker) {
	k.round++
	for key, f := range k.flows.All() {
		pair := tuple{decap.EndpointOf(key.A), decap.EndpointOf(key.B)}
		if m := k.mirrors[pair]; m != nil {
			m.round = k.round
			k.apply(t, pair, m, &f)
		}
	}
	for key, m := range k.mirrors {
		if m.round != k.round { // it has gone, or was left out
			k.fetch(t, key)
		}
	}
	k.reconsider()
}

// apply takes what is new of a flow.
func (k *kernel) apply(t *Tracker, key tuple, m *mirror, f *datapath.Flow) {
	if f.Born != m.born { // another one: the kernel has forgotten the first
		if m.born != 0 {
			t.counters.FlowsEvicted++
		}
		*m = mirror{born: f.Born, round: m.round}
	}
	for i := range f.Directions {
		l, fromA := &f.Directions[i], i == 0
		m.whole[i] = l.Whole
		k.applyHeld(t, key, fromA, &m.held[i], l)
		// The bytes of a packet may be seen after it: the program counts meanwhile.
		if l.Matched == m.known[i] {
			continue
		}
		p := t.counted(key, fromA, m.lessons[i].path, since(&m.known[i], l.Matched), l.Last.UnixNano())
		if p != nil && l.Match == datapath.MatchID && l.Spin.Packets != m.spins[i] {
			m.spins[i] = l.Spin.Packets
			t.spun(p, p.side(fromA), &l.Spin)
		}
	}
}

// applyHeld takes what is new of a lane's packets that the tracker should have seen.
// They are of the connection whose ID was shown last. If the tracker has yet to see
// that one, they wait.
func (k *kernel) applyHeld(t *Tracker, key tuple, fromA bool, taken *datapath.Tally, l *datapath.Direction) {
	if l.Unreported == *taken {
		return
	}
	var owner *path
	if e := t.flows.peek(key); e != nil && len(e.value.paths) > 1 {
		owner = e.value.owner(fromA, l.Reported[:])
		if owner == nil && k.flows.Pending() {
			return
		}
		if owner == nil {
			owner = e.value.likely(fromA, t.slack)
		}
	}
	t.counted(key, fromA, owner, since(taken, l.Unreported), l.Last.UnixNano())
}

// since is what has been counted since before.
func since(before *datapath.Tally, now datapath.Tally) Traffic {
	n := Traffic{now.Packets - before.Packets, now.Bytes - before.Bytes}
	*before = now
	return n
}

// teach implements [offload].
func (k *kernel) teach(t *Tracker, key tuple, seen bool) {
	m := k.mirrors[key]
	switch {
	case m == nil && !seen:
		return // the next packet will be
	case m == nil:
		m = &mirror{round: k.round}
		k.mirrors[key] = m
	}
	if m.born == 0 && !k.begin(t, key, m) { // it is not one that the kernel reads
		delete(k.mirrors, key)
		return
	}
	lessons, ruledOut := t.lessons(key)
	if !k.differs(t, key, m, lessons, ruledOut) {
		return
	}
	if m.lessons != [2]lesson{} { // what was counted by these is not by others
		k.fetch(t, key)
		lessons, ruledOut = t.lessons(key)
	}
	again := m.ruledOut && !ruledOut
	l := k.lesson(t, key, m, lessons, ruledOut)
	if ok, err := k.flows.SetRules(flowKey(key), &l); err != nil || !ok {
		delete(k.mirrors, key)
	}
	if again {
		k.reconsider()
	}
}

// reconsider makes the kernel look up flows that were ruled out.
func (k *kernel) reconsider() {
	_ = k.flows.ForgetIgnored() // an error says that it is closed
}

// begin takes over what was counted of a flow before it was shown.
func (k *kernel) begin(t *Tracker, key tuple, m *mirror) bool {
	f, ok, err := k.flows.Lookup(flowKey(key))
	if err != nil || !ok {
		return false
	}
	k.apply(t, key, m, &f)
	return true
}

// differs says whether the kernel should know something that it does not.
func (k *kernel) differs(t *Tracker, key tuple, m *mirror, lessons [2]lesson, ruledOut bool) bool {
	if m.lessons != lessons || m.ruledOut != ruledOut || k.wantsMore(t, key, m) {
		return true
	}
	for i, what := range lessons {
		if w := what.way(i == 0); w != nil && w.spin.packets != m.spins[i] {
			return true
		}
	}
	return false
}

// lesson makes it, and notes what the kernel knows then. Where the tracker has
// followed the spin bit itself, the kernel goes on from there.
func (k *kernel) lesson(t *Tracker, key tuple, m *mirror, lessons [2]lesson, ruledOut bool) (l datapath.FlowRules) {
	l.Ignored, l.WholeAgain = ruledOut, k.wantsMore(t, key, m)
	if l.WholeAgain {
		m.whole = [2]uint32{}
	}
	for i, what := range lessons {
		lane := &l.Directions[i]
		lane.Match, lane.ID, lane.IDLen, lane.Segment = what.what, what.id.bytes, what.id.Len(), int(what.segment)
		w := what.way(i == 0)
		if w != nil && (w.spin.packets != m.spins[i] || m.lessons[i].path != what.path) {
			m.spins[i] = w.spin.packets
			lane.Spin = new(datapath.Spin)
			w.spin.to(lane.Spin)
		}
	}
	m.lessons, m.ruledOut = lessons, ruledOut
	return l
}

// way returns the one whose spin bit the lesson is about, or nil for none.
func (l *lesson) way(fromA bool) *way {
	if l.what != datapath.MatchID {
		return nil
	}
	return &l.path.ways[l.path.side(fromA)]
}

// maxWhole is how many long headers of a direction the kernel shows whole.
const maxWhole = 8

// wantsMore says whether long headers are to be shown whole again: where a hello
// needs more of them, of a handshake of which Initials open; and once all handshakes
// are over, for the next one between the same endpoints.
func (k *kernel) wantsMore(t *Tracker, key tuple, m *mirror) bool {
	e := t.flows.peek(key)
	if e == nil || m.whole == [2]uint32{} {
		return false
	}
	over, spent := true, m.whole[0] >= maxWhole || m.whole[1] >= maxWhole
	for _, p := range e.value.paths {
		if at := p.record.attempt; spent && at != nil && p.record.confidence == Proven && !(at.read[0] && at.read[1]) {
			return true
		}
		over = over && p.record.established()
	}
	return over
}

// forget implements [offload].
func (k *kernel) forget(key tuple) {
	m := k.mirrors[key]
	if m == nil {
		return
	}
	delete(k.mirrors, key)
	if m.ruledOut {
		k.reconsider()
	}
	// An error says that it is closed.
	_, _, _ = k.flows.Take(flowKey(key))
}

// spun takes what the kernel has made of the spin bit.
func (t *Tracker) spun(p *path, from wire.Side, k *datapath.Spin) {
	s := &p.ways[from].spin
	before := s.samples
	s.from(k)
	if s.samples != before && !s.greased() {
		t.emitRTT(p.record, s.average())
	}
}

// from and to exchange the state of the spin bit with the kernel.
func (s *spin) from(k *datapath.Spin) {
	*s = spin{
		sum: int64(k.Sum), half: int64(k.Half),
		packets: k.Packets, edges: k.Edges, samples: k.Samples, rejected: k.Rejected,
		value: k.Value, started: k.Started,
	}
	if !k.Edge.IsZero() {
		s.edge = k.Edge.UnixNano()
	}
}

func (s *spin) to(k *datapath.Spin) {
	*k = datapath.Spin{
		Sum: time.Duration(s.sum), Half: time.Duration(s.half),
		Packets: s.packets, Edges: s.edges, Samples: s.samples, Rejected: s.rejected,
		Value: s.value, Started: s.started,
	}
	if s.edge != 0 {
		k.Edge = time.Unix(0, s.edge)
	}
}
