package monitor

import (
	"time"

	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/decap"
	"github.com/quicway/quicway/internal/wire"
)

// kernelSlack is by how much the times of connections may be wrong when the kernel
// counts their packets: its counters are read once a second.
const kernelSlack = int64(time.Second)

// offload adds what the kernel has counted to the index, and gives the kernel the
// rules about packets that it need not report. The source reads packets from the
// same kernel flows on its own. The methods do nothing if the offload is nil.
type offload struct {
	kernel   *datapath.Monitor
	index    *index
	counters *counters
	events   *events
	flows    map[tuple]*kernelFlow
	round    uint64 // of fetchAll
}

// kernelFlow is what the kernel was last seen to know of a flow.
type kernelFlow struct {
	born       uint64            // identifies the kernel's entry; 0: not looked up yet
	matched    [2]datapath.Tally // packets that match a rule, from key.a and from key.b
	unreported [2]datapath.Tally // packets that match none, and were not reported because of the limit
	spins      [2]uint32         // the spin.packets that tracker and kernel last agreed on
	whole      [2]uint32         // long headers that were reported whole
	rules      flowRules
	round      uint64 // in which it was last seen
}

// flowRules say which packets of a flow the kernel need not report.
type flowRules struct {
	directions [2]rule // from key.a, and from key.b
	ignored    bool    // only packets that may begin a handshake are to be reported
}

// rule says which packets of one direction the kernel need not report: those of a
// path.
type rule struct {
	path    *path // nil: every packet is to be reported
	match   datapath.Match
	id      ID
	segment uint16
}

// newOffload returns an offload that keeps an index in step with the kernel.
func newOffload(kernel *datapath.Monitor, index *index, counters *counters, events *events) *offload {
	return &offload{kernel: kernel, index: index, counters: counters, events: events, flows: make(map[tuple]*kernelFlow)}
}

// flowKey returns the key of a flow in its kernel form.
func flowKey(key tuple) datapath.FlowKey {
	return datapath.FlowKey{A: key.a.AddrPort(), B: key.b.AddrPort()}
}

// fetch adds what the kernel has counted of a flow.
func (o *offload) fetch(key tuple) {
	if o == nil {
		return
	}
	k := o.flows[key]
	if k == nil {
		return
	}
	f, ok, err := o.kernel.Lookup(flowKey(key))
	switch {
	case err != nil: // closed: what is known stays
	case !ok: // the kernel has removed it to make room
		delete(o.flows, key)
		o.counters.FlowsEvicted++
	default:
		o.add(key, k, &f)
	}
}

// fetchAll adds what the kernel has counted of all flows.
func (o *offload) fetchAll() {
	if o == nil {
		return
	}
	o.round++
	for flowKey, f := range o.kernel.All() {
		key := tuple{decap.EndpointOf(flowKey.A), decap.EndpointOf(flowKey.B)}
		if k := o.flows[key]; k != nil {
			k.round = o.round
			o.add(key, k, &f)
		}
	}
	for key, k := range o.flows {
		if k.round != o.round { // it has been removed, or All has missed it
			o.fetch(key)
		}
	}
	o.reconsider()
}

// settle adds what the kernel has counted of a connection.
func (o *offload) settle(c *connection) {
	if o == nil {
		return
	}
	for _, p := range c.paths {
		o.fetch(p.key)
	}
}

// add adds what the kernel has counted of a flow since the last time.
func (o *offload) add(key tuple, k *kernelFlow, f *datapath.Flow) {
	if f.Born != k.born { // another flow: the kernel has removed the first one
		if k.born != 0 {
			o.counters.FlowsEvicted++
		}
		*k = kernelFlow{born: f.Born, round: k.round}
	}
	for i := range f.Directions {
		d, fromA := &f.Directions[i], i == 0
		k.whole[i] = d.Whole
		o.addUnreported(key, fromA, &k.unreported[i], d)
		// The counters are read one after the other while the kernel counts.
		if d.Matched == k.matched[i] {
			continue
		}
		p := o.count(key, fromA, k.rules.directions[i].path, since(&k.matched[i], d.Matched), d.Last.UnixNano())
		if p != nil && d.Match == datapath.MatchID && d.Spin.Packets != k.spins[i] {
			k.spins[i] = d.Spin.Packets
			o.addSpin(p, p.side(fromA), k.rules.directions[i].id, &d.Spin)
		}
	}
}

// addUnreported adds packets of a direction that match no rule but were not
// reported. They belong to the connection with the ID that was reported last. If
// that report has not been read yet they are added later.
func (o *offload) addUnreported(key tuple, fromA bool, added *datapath.Tally, d *datapath.Direction) {
	if d.Unreported == *added {
		return
	}
	var p *path
	if e := o.index.flows.peek(key); e != nil && len(e.value.paths) > 1 {
		p = e.value.byID(fromA, d.Reported[:])
		if p == nil && o.kernel.Pending() {
			return
		}
		if p == nil {
			p = e.value.likeliest(fromA, o.index.slack)
		}
	}
	o.count(key, fromA, p, since(added, d.Unreported), d.Last.UnixNano())
}

// since returns what was counted since before, and sets before to now.
func since(before *datapath.Tally, now datapath.Tally) (n Traffic) {
	for ecn := range now.Packets {
		packets := uint64(now.Packets[ecn] - before.Packets[ecn])
		n.Packets += packets
		n.ECN.count(decap.ECN(ecn), packets)
	}
	n.Bytes = now.Bytes - before.Bytes
	*before = now
	return n
}

// count adds packets of one direction that the tracker has not seen to p, or to
// the busiest path if p is not there any more or not known (nil). It returns the
// path that they were added to, or nil.
func (o *offload) count(key tuple, fromA bool, p *path, n Traffic, last int64) *path {
	o.counters.Packets += n.Packets
	o.counters.Datagrams += n.Packets
	e := o.index.flows.peek(key)
	if e == nil {
		o.index.countOther(key, n.Packets)
		if e := o.index.potential.get(key, last); e != nil {
			o.counters.potential(&e.value, n.Packets)
			e.value.addCounted(fromA, n, last)
		}
		return nil
	}
	o.counters.Tracked += n.Packets
	p = e.value.orBusiest(p)
	p.addCounted(p.side(fromA), n, last)
	c := p.conn
	if c.returns >= maxReturns && last > c.active.sent[wire.Client].last {
		c.active = p // of several in use the latest
	}
	if o.index.connections.peek(c.number) == c.entry { // it is not being removed
		o.index.flows.get(key, last)
		o.index.touch(c, p, max(c.last, last))
		o.index.recount(c, false)
	}
	return p
}

// addSpin takes over the kernel's state of a direction's spin bit. The kernel has followed packets
// with the ID of its rule.
func (o *offload) addSpin(p *path, from wire.Side, id ID, k *datapath.Spin) {
	s := &p.sent[from].spin
	before := s.samples
	s.from(k)
	p.sent[from].spinID = id
	if s.samples != before && !s.greased() && p.spins() {
		p.addSample(from, s.average())
		o.events.spinRTT(p.conn, s.average())
	}
}

// packetHandled updates the rules after a packet: those of its flow, and those of
// the other paths of the connections there.
func (o *offload) packetHandled(a *arrival) {
	if o == nil {
		return
	}
	o.updateRules(a.key, true)
	if a.flow == nil {
		return
	}
	for _, p := range a.flow.paths {
		for _, other := range p.conn.paths {
			if other.key != a.key {
				o.updateRules(other.key, false)
			}
		}
	}
}

// updateRules gives the kernel the rules of a flow if they have changed. reported
// says whether the kernel has just reported one of its packets.
func (o *offload) updateRules(key tuple, reported bool) {
	if o == nil {
		return
	}
	k := o.flows[key]
	switch {
	case k == nil && !reported:
		return // its next packet will be reported
	case k == nil:
		k = &kernelFlow{round: o.round}
		o.flows[key] = k
	}
	if k.born == 0 && !o.begin(key, k) { // not a flow that the kernel counts
		delete(o.flows, key)
		return
	}
	rules := o.index.rules(key)
	if !k.outdated(rules, o.wantsWhole(key, k)) {
		return
	}
	if k.rules.directions != [2]rule{} { // what the old rules have covered belongs to their paths
		o.fetch(key)
		rules = o.index.rules(key)
	}
	o.set(key, k, rules)
}

// begin adds what was counted of a flow before its first packet was reported.
func (o *offload) begin(key tuple, k *kernelFlow) bool {
	f, ok, err := o.kernel.Lookup(flowKey(key))
	if err != nil || !ok {
		return false
	}
	o.add(key, k, &f)
	return true
}

// set gives the kernel the rules of a flow.
func (o *offload) set(key tuple, k *kernelFlow, rules flowRules) {
	noLonger := k.rules.ignored && !rules.ignored
	l := k.update(rules, o.wantsWhole(key, k))
	if ok, err := o.kernel.SetRules(flowKey(key), &l); err != nil || !ok {
		delete(o.flows, key)
	}
	if noLonger {
		o.reconsider()
	}
}

// forget ends a flow: the kernel reports its next packet.
func (o *offload) forget(key tuple) {
	if o == nil {
		return
	}
	k := o.flows[key]
	if k == nil {
		return
	}
	delete(o.flows, key)
	if k.rules.ignored {
		o.reconsider()
	}
	_, _, _ = o.kernel.Take(flowKey(key)) // an error says that it is closed
}

// reconsider makes the kernel look up ignored flows again.
func (o *offload) reconsider() {
	_ = o.kernel.ForgetIgnored() // an error says that it is closed
}

// outdated reports whether the kernel has to be given rules, or the state of a
// spin bit that the tracker has followed itself.
func (k *kernelFlow) outdated(rules flowRules, whole bool) bool {
	if k.rules != rules || whole {
		return true
	}
	for i, r := range rules.directions {
		if sent := r.sent(i == 0); sent != nil && sent.spin.packets != k.spins[i] {
			return true
		}
	}
	return false
}

// update notes rules as given to the kernel, and returns them in its form. whole
// makes the kernel report long headers whole again.
func (k *kernelFlow) update(rules flowRules, whole bool) (l datapath.FlowRules) {
	l.Ignored, l.WholeAgain = rules.ignored, whole
	if whole {
		k.whole = [2]uint32{}
	}
	for i, r := range rules.directions {
		d := &l.Directions[i]
		d.Match, d.ID, d.IDLen, d.Segment = r.match, r.id.bytes, r.id.Len(), int(r.segment)
		sent := r.sent(i == 0)
		if old := k.rules.directions[i]; sent != nil && (sent.spin.packets != k.spins[i] || old.path != r.path || old.id != r.id) {
			k.spins[i] = sent.spin.packets
			d.Spin = new(datapath.Spin)
			sent.spin.to(d.Spin)
			d.Spin.Renewed = sent.spinID != r.id // the kernel follows packets with the rule's ID
		}
	}
	k.rules = rules
	return l
}

// maxWhole is the number of long headers of a direction that the kernel reports
// whole.
const maxWhole = 8

// wantsWhole reports whether the kernel is to report long headers whole again: for
// a handshake whose Initials are decrypted but whose hellos are not complete, and once all
// handshakes are over, for the next one between the same endpoints.
func (o *offload) wantsWhole(key tuple, k *kernelFlow) bool {
	e := o.index.flows.peek(key)
	if e == nil || k.whole == [2]uint32{} {
		return false
	}
	over, spent := true, k.whole[0] >= maxWhole || k.whole[1] >= maxWhole
	for _, p := range e.value.paths {
		if h := p.conn.handshake; spent && h != nil && p.conn.confidence == Proven && !h.done() {
			return true
		}
		over = over && p.conn.established()
	}
	return over
}

// from and to exchange the state of the spin bit with the kernel, which follows packets of one ID.
func (s *spin) from(k *datapath.Spin) {
	*s = spin{
		sum: int64(k.Sum), half: int64(k.Half),
		packets: k.Packets, edges: k.Edges, samples: k.Samples, rejected: k.Rejected,
		value: k.Value, started: k.Started, renewed: k.Renewed, withID: s.withID,
	}
	if !k.Edge.IsZero() {
		s.edge = k.Edge.UnixNano()
	}
}

func (s *spin) to(k *datapath.Spin) {
	*k = datapath.Spin{
		Sum: time.Duration(s.sum), Half: time.Duration(s.half),
		Packets: s.packets, Edges: s.edges, Samples: s.samples, Rejected: s.rejected,
		Value: s.value, Started: s.started, Renewed: s.renewed,
	}
	if s.edge != 0 {
		k.Edge = time.Unix(0, s.edge)
	}
}
