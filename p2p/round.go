package p2p

import (
	"net/netip"
	"time"

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
)

// round is one attempt to find a direct path.
type round struct {
	number  uint64
	running bool
	began   time.Time
	next    time.Time // when another begins by itself; zero: never
	pause   time.Duration
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
	f.unusable = false
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
		f.ping(p.addr, p.ask(), now)
		f.list.probed(p, now)
	}
}

// ping asks an address whether the peer is there, by a probe of a size; 0 is the
// smallest. It returns the probe's number, and the error of the system if it is too
// large.
func (f *pathfinder) ping(to netip.AddrPort, size int, now time.Time) (uint64, error) {
	data, sequence := f.prober.pingOf(size)
	f.list.ask(to, sequence, size, now)
	err := f.link.mux.push(&udp.Message{Data: data, Remote: to})
	if udp.IsMessageTooLong(err) {
		return sequence, err
	}
	if p := f.list.find(to); p != nil {
		p.err = err
	}
	return sequence, nil
}

func (f *pathfinder) write(data []byte, to netip.AddrPort) error {
	return f.link.mux.write(&udp.Message{Data: data, Remote: to})
}

// probe takes what may be a probe of the peer's.
func (f *pathfinder) probe(a arrived) {
	p, err := f.prober.parse(a.data)
	if err != nil || f.link.isRelay(a.from) {
		f.link.mux.unsorted.Add(1)
		return
	}
	now := time.Now()
	if !a.from.IsValid() {
		f.relayed(p, now)
		return
	}
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
	_ = f.write(f.prober.pong(p.sequence, from), from)
	f.doubtRelay(now)
	q := f.list.find(from)
	switch {
	case q == nil:
		f.list.add(candidate{ReflexiveCandidate, from}, now)
	case f.round.running && q.answered.IsZero() && q.sent < len(checkDelays):
		q.next = now // its NAT lets us through now
	}
	if !f.round.running && f.silent(now) {
		f.ping(from, 0, now)
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
	f.measureDirect(baseSize, now)
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
	if from == f.current {
		f.directSize.answer(p.answers, now)
	}
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
	if q == nil || !f.round.running {
		return
	}
	f.fit(q, now)
	if f.link.role != control.Dialer || f.moving || !q.fit() {
		return
	}
	if f.choose.IsZero() {
		f.choose = now.Add(gather)
	}
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
		why := WhyNoAnswer
		if f.unusable || f.list.anyAnswered() {
			why = WhyNotUsable
		}
		f.change(why)
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
