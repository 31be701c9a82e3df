package p2p

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/udp"
)

// Timing of rounds.
const (
	// gather is how long other addresses may take to answer after the first
	// that does, before one is chosen.
	gather = 15 * time.Millisecond
	// Rounds that find nothing are repeated after firstPause, then after twice
	// as long each time, up to lastPause.
	firstPause = 5 * time.Second
	lastPause  = 5 * time.Minute
	// lostPause is the one while the relay is lost too.
	lostPause = time.Second
	// quiet is how long a round is not begun again because the peer says so.
	quiet = time.Second
	// silentAfter is how long a peer may take to name its addresses.
	silentAfter = 10 * time.Second
	// probeQueue is how many probes wait for the pathfinder. Further ones are
	// lost.
	probeQueue = 32
	// shortestKeepAlive is what keepalives of a direct path come down to when
	// NATs forget it.
	shortestKeepAlive = 5 * time.Second
)

// pathfinder finds the best path for a connection, and leaves it when it dies. All
// is done by one goroutine, run; others only hand it what has arrived. ARCHITECTURE
// has its states.
type pathfinder struct {
	conn   *Conn
	link   *link
	locals *locals // nil: RelayOnly
	prober *prober

	frames  chan frame
	probes  chan arrived
	changed chan struct{} // addresses of this host
	moves   chan move
	standby chan standby

	// Of run alone.
	policy   PathPolicy // ours and the peer's
	list     *checklist
	own      []candidate          // what the peer has been told
	numbers  []uint64             // by which sequence numbers
	sequence uint64               // the last one
	named    map[uint64]candidate // what the peer has told
	budget   budget               // of that
	started  time.Time
	round    round
	using    *move // a dialer's direct path in use
	left     *move // the one that it has left last, if nothing has come by the relay since
	moving   bool  // a move is under way
	back     *quic.Path
	// preparing says that the way back is being validated.
	preparing bool
	current   netip.AddrPort // where the peer is; the zero AddrPort: at the relay
	since     time.Time      // when it came there
	vitals    vitals
	choose    time.Time // when a pair is to be chosen; zero: never
	retry     time.Time // when the standby is to be prepared again; zero: never
	found     time.Time // when the relay was there last
}

// round is one attempt to find a direct path.
type round struct {
	number  uint64
	running bool
	began   time.Time
	next    time.Time // when another begins by itself; zero: never
	pause   time.Duration
}

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

// arrived is a probe, or what looks like one.
type arrived struct {
	data []byte
	from netip.AddrPort
}

// standby is the way back over the relay, or why there is none.
type standby struct {
	path *quic.Path
	err  error
}

// newPathfinder makes what finds a connection's paths.
func newPathfinder(c *Conn) (*pathfinder, error) {
	prober, err := newProber(c.ConnectionState().TLS, c.link.role)
	if err != nil {
		return nil, err
	}
	f := &pathfinder{
		conn:    c,
		link:    c.link,
		prober:  prober,
		frames:  make(chan frame),
		probes:  make(chan arrived, probeQueue),
		changed: make(chan struct{}, 1),
		moves:   make(chan move, 1),
		standby: make(chan standby, 1),
		policy:  c.endpoint.conf.Policy,
		list:    newChecklist(),
		named:   make(map[uint64]candidate),
	}
	if c.link.home.addr.Addr().IsLoopback() {
		f.policy = RelayOnly // no way is shorter than by this very host
	}
	if f.policy != RelayOnly {
		f.locals = c.endpoint.openLocals()
		c.endpoint.mux.addProbed(prober.own, f)
	}
	return f, nil
}

// receive takes a probe from the network. It returns false if there is no room.
func (f *pathfinder) receive(data []byte, from netip.AddrPort) bool {
	select {
	case f.probes <- arrived{bytes.Clone(data), from}:
		return true
	default:
		return false
	}
}

// heed takes a frame that the peer has sent.
func (f *pathfinder) heed(fr frame) {
	fr.payload = bytes.Clone(fr.payload)
	select {
	case f.frames <- fr:
	case <-f.conn.Context().Done():
	}
}

// run finds paths until the connection ends.
func (f *pathfinder) run() {
	if f.locals == nil {
		f.idle()
		return
	}
	defer f.conn.endpoint.mux.removeProbed(f.prober.own, f)
	f.locals.tell(f.conn, f.changed)
	defer f.locals.ignore(f.conn)
	f.started = time.Now()
	f.wish()
	f.announce()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-f.conn.Context().Done():
			return
		case fr := <-f.frames:
			f.frame(fr)
		case a := <-f.probes:
			f.probe(a)
		case <-f.changed:
			f.announce()
			f.replace(time.Now())
		case m := <-f.moves:
			f.moved(m)
		case s := <-f.standby:
			f.prepared(s)
		case <-timer.C:
		}
		timer.Reset(time.Until(f.advance(time.Now())))
	}
}

// idle is run for a side that wants nothing but the relay. It says so.
func (f *pathfinder) idle() {
	f.wish()
	for {
		select {
		case <-f.conn.Context().Done():
			return
		case <-f.frames:
		}
	}
}

// advance does what is due, and returns when it should be called again.
func (f *pathfinder) advance(now time.Time) time.Time {
	if f.link.role == control.Accepter {
		f.follow(now)
	}
	next := now.Add(time.Hour)
	for _, at := range []time.Time{
		f.watch(now), f.begin(now), f.send(now), f.decide(now), f.end(now), f.renew(now), f.comeBack(now), f.enforce(now),
	} {
		if !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	return next
}

// direct says whether the connection has a direct path.
func (f *pathfinder) direct() bool { return f.current.IsValid() }

// announce tells the peer the addresses that this side has now. If there are others
// than before, all is tried again.
func (f *pathfinder) announce() {
	own := f.locals.candidates()
	if seen := f.link.observed(); seen.IsValid() && !hasAddr(own, seen) {
		own = append(own, candidate{ObservedCandidate, seen})
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
	if !f.link.mux.reaches(a.Addr()) || a == f.link.home.addr {
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

// start begins a round. Both sides probe at once.
func (f *pathfinder) start(now time.Time) {
	if f.policy == RelayOnly {
		return
	}
	if !f.round.running {
		f.conn.counters.attempts.Add(1)
	}
	f.round.number++
	f.round.running, f.round.began, f.round.next = true, now, time.Time{}
	f.list.restart(now)
}

// again begins a round at this side's wish, and asks the peer to do the same.
func (f *pathfinder) again(now time.Time) {
	f.round.pause = 0
	f.start(now)
	f.conn.tell(numbered(framePunchMeNow, f.round.number))
}

// begin begins the round that is due, or says when it is.
func (f *pathfinder) begin(now time.Time) time.Time {
	if !f.round.next.IsZero() && !f.round.next.After(now) {
		pause := f.round.pause
		f.again(now)
		f.round.pause = pause
	}
	return f.round.next
}

// send sends the probes that are due, and says when the next is.
func (f *pathfinder) send(now time.Time) time.Time {
	if !f.round.running {
		return time.Time{}
	}
	for {
		p, next := f.list.due(now)
		if p == nil {
			return next
		}
		// Small, because nobody knows yet who is there. Whether the path
		// carries QUIC's packets is QUIC's to validate.
		f.ping(p.addr, now)
		f.list.probed(p, now)
	}
}

// ping asks an address whether the peer is there.
func (f *pathfinder) ping(to netip.AddrPort, now time.Time) {
	data, sequence := f.prober.ping()
	f.list.ask(to, sequence, now)
	f.write(data, to)
}

func (f *pathfinder) write(data []byte, to netip.AddrPort) {
	_ = f.link.mux.write(&udp.Message{Data: data, Remote: to})
}

// probe takes what may be a probe of the peer's.
func (f *pathfinder) probe(a arrived) {
	p, err := f.prober.parse(a.data)
	if err != nil || a.from == f.link.home.addr {
		f.link.mux.unsorted.Add(1)
		return
	}
	now := time.Now()
	switch p.kind {
	case probePing:
		f.asked(p, a.from, now)
	case probePong:
		f.answered(p, a.from, now)
	}
}

// asked answers a ping. Packets from where it has come are the peer's. Whether it
// also is there, and has not only made somebody else's address the sender's, a ping
// of ours will tell.
func (f *pathfinder) asked(p probe, from netip.AddrPort, now time.Time) {
	if f.policy == RelayOnly || !speakable(from) {
		return
	}
	f.link.direct.learn(from, f.current)
	f.write(f.prober.pong(p.sequence, from), from)
	q := f.list.find(from)
	switch {
	case q == nil:
		f.list.add(candidate{ReflexiveCandidate, from}, now)
	case f.round.running && q.answered.IsZero() && q.sent < len(checkDelays):
		q.next = now // its NAT lets us through now
	}
	if !f.round.running && f.silent(now) {
		f.ping(from, now)
	}
}

// silent says whether the direct path in use is.
func (f *pathfinder) silent(now time.Time) bool {
	return f.using != nil && !f.moving && f.link.direct.activity.silence(now) >= suspectAfter
}

// reaim follows a peer who has another address now: its NAT has forgotten the one
// in use, or it has moved. It has answered there.
func (f *pathfinder) reaim(to netip.AddrPort, now time.Time) {
	f.using.way.remote.Store(&to)
	f.using.remote, f.current = to, to
	f.link.direct.activity.reset(now)
	f.vitals = vitals{rtt: f.vitals.rtt}
	f.change(WhyPeerMoved)
}

// answered takes a pong.
func (f *pathfinder) answered(p probe, from netip.AddrPort, now time.Time) {
	question, ok := f.list.asked[p.answers]
	if !ok || question.remote != from {
		return
	}
	f.link.direct.learn(from, f.current)
	switch {
	case from != f.current && f.silent(now):
		f.reaim(from, now)
	case f.left != nil && from == f.left.remote && !f.moving:
		if f.forget(); f.left != nil && now.Sub(f.since) >= relayPatience {
			f.rejoin(now)
		}
	}
	if from == f.current {
		f.vitals.alive(&f.link.direct.activity, now)
		f.vitals.rtt = now.Sub(question.at)
	}
	q := f.list.answer(p, from, now)
	if q == nil || f.link.role != control.Dialer || f.moving || !f.round.running {
		return
	}
	if f.choose.IsZero() {
		f.choose = now.Add(gather)
	}
}

// decide moves the connection to the best pair when it is time to.
func (f *pathfinder) decide(now time.Time) time.Time {
	if f.choose.IsZero() || f.choose.After(now) {
		return f.choose
	}
	f.choose = time.Time{}
	best := f.list.best()
	switch {
	case best == nil || f.moving || f.policy == RelayOnly:
	case f.policy == PreferRelay && !f.conn.relayLost.Load():
	case best.addr == f.current:
	case f.direct() && !f.worthMoving(best):
	default:
		f.move(best)
	}
	return time.Time{}
}

// worthMoving says whether a pair is better than the path in use.
func (f *pathfinder) worthMoving(p *pair) bool {
	used := f.list.find(f.current)
	return used != nil && !used.answered.IsZero() && p.worthMoving(used)
}

// move begins to move the connection.
func (f *pathfinder) move(to *pair) {
	if f.forget(); f.left != nil && f.back != nil {
		return // the peer has not followed to the relay
	}
	var used *way
	if m := f.onto(); m != nil {
		used = m.way
	}
	w, err := f.link.spare(used)
	if err != nil {
		return
	}
	f.moving = true
	f.link.direct.dead.Store(nil) // it answers
	remote := to.addr
	f.conn.background.Go(func() { f.moves <- f.conn.moveTo(w, remote) })
}

// onto is the direct path that quic-go is on, or was until the relay is proved.
func (f *pathfinder) onto() *move {
	if f.using != nil {
		return f.using
	}
	return f.left
}

// moved takes note of how a move has ended.
func (f *pathfinder) moved(m move) {
	f.moving = false
	now := time.Now()
	p := f.list.find(m.remote)
	if m.err != nil {
		f.conn.endpoint.log.Debug("no direct path", "remote", m.remote, "err", m.err)
		if p != nil {
			p.answered = time.Time{} // not with QUIC
		}
		return
	}
	why := WhyPunched
	if f.using != nil {
		why = WhyBetter
	}
	if old := f.onto(); old != nil {
		_ = old.path.Close()
	}
	f.using, f.left = &m, nil
	f.arrive(m.remote, p, now, why)
	f.list.settle()
	f.prepare()
}

// arrive takes note that the connection is on a direct path now.
func (f *pathfinder) arrive(at netip.AddrPort, p *pair, now time.Time, why PathReason) {
	f.current, f.since = at, now
	f.link.direct.dead.Store(nil)
	f.link.direct.activity.reset(now)
	f.link.activity.forgive()
	f.vitals = vitals{rtt: f.conn.ConnectionStats().SmoothedRTT}
	if p != nil && p.rtt > 0 {
		f.vitals.rtt = p.rtt
	}
	f.round.pause = 0
	f.conn.counters.succeeded(at.Addr(), now.Sub(f.conn.began))
	f.change(why)
}

// change tells those who want to know where the connection is.
func (f *pathfinder) change(why PathReason) {
	f.conn.paths.change(func(p *Path) {
		p.Kind, p.Remote, p.Local, p.Why = Relayed, f.link.remote(), f.link.observed(), why
		if f.direct() {
			p.Kind, p.Remote = kindOf(f.current.Addr()), f.current
			if q := f.list.find(f.current); q != nil && q.observed.IsValid() {
				p.Local = q.observed
			}
		}
		if why == WhyNoAnswer || why == WhyPunched {
			p.Tried = f.list.results()
		}
	})
	f.conn.endpoint.log.Info("path", "peer", f.conn.remote, "path", f.conn.Path())
}

// end ends a round that is over, or says when it may be. If it has found nothing
// another one follows, later each time.
func (f *pathfinder) end(now time.Time) time.Time {
	if !f.round.running {
		return f.silence(now)
	}
	if !f.list.over(now) || f.moving || !f.choose.IsZero() {
		return now.Add(100 * time.Millisecond)
	}
	f.round.running = false
	if f.direct() {
		return time.Time{}
	}
	f.round.pause = min(max(2*f.round.pause, firstPause), lastPause)
	if f.conn.relayLost.Load() {
		f.round.pause = lostPause
	}
	if f.link.role == control.Dialer {
		f.round.next = now.Add(f.round.pause)
	}
	if len(f.list.pairs) > 0 && f.list.best() == nil {
		f.change(WhyNoAnswer)
	}
	return f.round.next
}

// silence says, once, that the peer has named no addresses.
func (f *pathfinder) silence(now time.Time) time.Time {
	due := f.started.Add(silentAfter)
	switch {
	case f.started.IsZero() || len(f.list.pairs) > 0:
		return time.Time{}
	case due.After(now):
		return due
	}
	f.started = time.Time{}
	if f.policy != RelayOnly {
		f.change(WhySilent)
	}
	return time.Time{}
}
