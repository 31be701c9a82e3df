package p2p

import (
	"context"
	"slices"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// Timing of the failover from one relay to another. The silence after which a relay counts
// as dead is the same as for a direct path: see liveness.go.
const (
	// askAfter is the silence, plus the round-trip time, after which both relays are
	// asked whether they answer, and askAgain the period in which they are asked again.
	askAfter = 100 * time.Millisecond
	askAgain = 250 * time.Millisecond
	// askPatience is how long the relay that carries has to answer, at least.
	askPatience = 150 * time.Millisecond
	// askStandbyEvery is the period in which the standby relay of an active connection
	// is asked, and standbyPatience how long it has to answer.
	askStandbyEvery = 1500 * time.Millisecond
	standbyPatience = time.Second
	// maxHelpless bounds how often the patience doubles.
	maxHelpless = 5
	// diedFor is how long a relay that was left because it is dead is no standby, though its
	// control connection has not ended yet.
	diedFor = 5 * time.Second
	// formerLife is how long packets may come from a relay that is not used any more.
	formerLife = 30 * time.Second
	// maxFormer bounds the legs that are given back later.
	maxFormer = 3
	// drainedLife is the same for a relay that waits until nothing is registered any more.
	drainedLife = 3 * time.Second
)

// failover keeps the legs of a connection registered at a second relay, the standby relay,
// and has packets go through it when the relay that carries has died or drains. Each side
// decides alone: either relay forwards, and both sides accept packets from both. Used only
// by the pathfinder's run goroutine.
type failover struct {
	conn *Conn
	link *link
	// Other goroutines hand these to run.
	news   chan struct{} // holds a token when watch should look
	opened chan openedLeg

	standby  *leg    // where both sides are registered; nil: none
	next     opening // the standby that is being prepared
	number   uint64  // of the last proposal
	former   []formerLeg
	refused  map[relayKey]avoided // relays that could not be used
	retry    time.Time            // when the next standby may be proposed
	pause    time.Duration        // after the last proposal, which has failed
	askedAt  time.Time            // when the relays were asked because of the present silence
	dueAt    time.Time            // when that silence will be long enough
	turnedAt time.Time
	direct   bool // the connection was on a direct path at the last look
	helpless int  // turns in a row after which nothing was heard, if the last is one of them
	from     *leg // that carried before the last turn
	own      bool // the last turn was this side's own decision
	insisted bool // the peer has been told of it a second time
	progress progress
	trial    trial
	spent    time.Time // when the rate of the peer's proposals so far equals proposalEvery
	resort   lastResort
}

// formerLeg is a leg that is given back after a while.
type formerLeg struct {
	*leg
	until time.Time
}

func newFailover(c *Conn) failover {
	f := failover{
		conn:    c,
		link:    c.link,
		news:    make(chan struct{}, 1),
		opened:  make(chan openedLeg, 1),
		refused: make(map[relayKey]avoided),
		resort:  lastResort{found: make(chan openedLeg, maxUsed)},
	}
	f.resort.remember(c.link.leg())
	return f
}

// stop hands the legs that are being registered when the connection ends to the link, which
// gives them back. No goroutine of the connection runs any more.
func (f *failover) stop() {
	for {
		var o openedLeg
		select {
		case o = <-f.opened:
		case o = <-f.resort.found:
		default:
			return
		}
		if o.leg != nil {
			f.link.addRoute(o.leg)
		}
	}
}

// isReady says whether both sides are registered at the standby relay, as far as this side
// knows, and the relay answers.
func (f *failover) isReady(now time.Time) bool {
	return f.isUsable(f.standby, now)
}

// isUsable says whether the leg is registered, as far as this side knows, and its relay
// answers, and is not the one that carries. The leg may be nil.
func (f *failover) isUsable(g *leg, now time.Time) bool {
	if g == nil || !g.isRegistered.Load() || g.isTwin(f.link.leg()) {
		return false
	}
	c := g.client
	return c.present() != nil && !c.draining() && c.unanswered(now) < standbyPatience
}

// spare returns the leg to which the connection can turn, or nil: the standby, or the leg
// that carried before a turn that has not helped.
func (f *failover) spare(now time.Time) *leg {
	switch {
	case f.isReady(now):
		return f.standby
	case !f.hasHelped() && slices.Contains(f.link.routes.Load().others, f.from) && f.isUsable(f.from, now):
		return f.from
	}
	return nil
}

// hasHelped says whether the last turn has helped: the peer has answered a ping through the
// relay that carries, or, if it does not know pings through relays, has been heard.
func (f *failover) hasHelped() bool {
	switch {
	case f.turnedAt.IsZero() || f.trial.passed:
		return true
	case f.link.peerReadsEnvelopes.Load():
		return false
	}
	return f.progress.heard.After(f.turnedAt) && f.link.activity.heardSince(f.turnedAt)
}

// silence is how long packets through the relay that carries have been unanswered, and how
// many there are. What quic-go does not accept is no answer.
func (f *failover) silence(now time.Time) (time.Duration, uint64) {
	a, p := &f.link.activity, &f.progress
	silence, owed := max(a.silence(now), p.silence(now)), max(uint64(a.owed.Load()), p.owed)
	if f.trial.pings > 0 && !f.hasHelped() {
		silence, owed = max(silence, now.Sub(f.trial.began)), max(owed, f.trial.pings)
	}
	return silence, owed
}

// look takes note of what quic-go has accepted.
func (f *failover) look(direct bool, now time.Time) {
	s := f.conn.ConnectionStats()
	f.progress.look(s, &f.link.activity, now)
	if f.direct = direct; direct {
		f.progress.leaveRelay(s) // these are packets of the direct path
		f.trial.pings = 0
	} else if !f.hasHelped() {
		f.trial.ping(f.conn.finder.pinger, now)
	}
}

// watch turns to the standby relay if it must, and looks for another standby if there is
// none. It returns when to look again, and why it has turned, or WhyEstablished.
func (f *failover) watch(direct bool, now time.Time) (next time.Time, why PathReason) {
	f.look(direct, now)
	why = f.follow(now)
	f.expire(now)
	if why == WhyEstablished {
		if spare := f.spare(now); spare != nil {
			why = f.leave(spare, direct, now)
		}
	}
	next = f.seek(now)
	if why == WhyEstablished {
		var again time.Time
		again, why = f.seekPeer(now)
		next = earliest(now, next, again)
	}
	silence, _ := f.silence(now)
	if f.standby == nil {
		switch {
		case !direct && !f.hasHelped():
			next = earliest(now, next, now.Add(askAgain))
		case silence > 0:
			next = earliest(now, next, now.Add(time.Second))
		}
		return next, why
	}
	period := time.Second
	if f.link.idle(now) < activeFor || silence > 0 {
		f.standby.client.ask(now, askStandbyEvery)
		period = askEvery / 3
	}
	if f.dueAt.After(now) {
		period = min(period, f.dueAt.Sub(now))
	}
	return earliest(now, next, now.Add(period)), why
}

// leave turns to a spare leg, if the relay that carries drains or is dead. It returns why it
// has turned.
func (f *failover) leave(spare *leg, direct bool, now time.Time) PathReason {
	carrier := f.link.leg().client
	switch {
	case carrier.draining():
		return f.turn(spare, WhyRelayDrains, now)
	case direct && carrier.present() == nil:
		return f.turn(spare, WhyRelayDied, now)
	case f.isDead(carrier, spare.client, now):
		return f.turn(spare, WhyRelayDied, now)
	}
	return WhyEstablished
}

// isDead says whether the relay that carries is dead: packets are unanswered, the spare
// relay answers this side, and the relay that carries does not. If it does, the peer may be
// slow or gone, and only a long silence shows that the relay does not forward.
func (f *failover) isDead(carrier, spare *relayClient, now time.Time) bool {
	rtt := f.conn.ConnectionStats().SmoothedRTT
	silence, owed := f.silence(now)
	if silence < askAfter+rtt || owed < fatalPackets {
		f.askedAt = time.Time{}
		return false
	}
	helpless := f.helpless
	if f.hasHelped() {
		helpless = 0
	}
	if f.askedAt.IsZero() {
		f.askedAt = now
	}
	connected := carrier.present() != nil
	carrier.ask(now, askAgain)
	spare.ask(now, askAgain)
	patience := (&liveness{rtt: rtt}).patience()
	if !connected {
		patience = suspectAfter + rtt
	}
	patience <<= helpless
	f.dueAt = now.Add(patience - silence)
	switch {
	case silence < patience || !spare.answeredSince(f.askedAt):
		return false
	case !connected || silence >= forwardPatience<<helpless:
		return true
	}
	took := time.Duration(spare.asks.took.Load())
	return carrier.unanswered(now) >= max(askPatience, took*3/2+askPatience/3)
}

// follow turns to the relay that the peer's packets come from, if they do not come from the
// one that carries, and that one is silent. It returns why it has turned. As a rule TURNED
// says where the peer is. But the peer cannot send that while its congestion window is full.
// What quic-go accepts proves nothing while packets come on a direct path.
func (f *failover) follow(now time.Time) PathReason {
	g := f.link.elsewhere.leg.Swap(nil)
	if f.direct || f.link.direct.activity.heard.Load() >= f.progress.quiet {
		return WhyEstablished
	}
	rtt := f.conn.ConnectionStats().SmoothedRTT
	silence := f.link.activity.silence(now)
	if g == nil || !slices.Contains(f.link.routes.Load().others, g) || !f.progress.isElsewhere() || silence < rtt+followAfter {
		return WhyEstablished
	}
	carrier := f.link.leg().client
	carrier.ask(now, askAgain)
	if carrier.present() != nil && carrier.unanswered(now) < askPatience && silence < suspicion {
		return WhyEstablished
	}
	return f.turn(g, WhyPeerTurned, now)
}

// peerTurned turns to the relay that the peer has turned to. The frame may be older than this
// side's own last turn: after a turn of both sides at the same time, the dialer's choice
// counts, and nobody goes back to a relay that this side has just left because it is dead.
func (f *failover) peerTurned(number uint64, now time.Time) PathReason {
	for _, g := range f.link.routes.Load().others {
		if g.number != number || !g.isRegistered.Load() {
			continue
		}
		crossing := f.own && now.Sub(f.turnedAt) < f.conn.ConnectionStats().SmoothedRTT+followAfter
		if crossing && f.link.role == control.Dialer || f.own && f.avoids(g.client.relay, now) {
			f.insist()
			return WhyEstablished
		}
		return f.turn(g, WhyPeerTurned, now)
	}
	return WhyEstablished
}

// insist tells the peer once more where this side is, once after each turn.
func (f *failover) insist() {
	if !f.insisted {
		f.insisted = true
		f.conn.queueFrame(numbered(frameTurned, f.link.leg().number))
	}
}

// turn has packets go through another relay. It returns why.
func (f *failover) turn(to *leg, why PathReason, now time.Time) PathReason {
	from := f.link.leg()
	if f.hasHelped() {
		f.helpless = 0
	}
	if why == WhyRelayDied || f.helpless > 0 {
		f.avoid(from.client.relay, avoided{now.Add(diedFor << min(f.helpless, 2)), from.client.present()}, now)
	}
	if !f.direct { // on a direct path nothing shows whether a turn helps
		f.helpless = min(f.helpless+1, maxHelpless) // until something is heard
	}
	f.from, f.own, f.insisted = from, why != WhyPeerTurned, false
	f.link.carryBy(to)
	if f.standby == to {
		f.standby = nil
	}
	if f.next.leg == to {
		f.next = opening{} // the peer is there already
	}
	f.resort.remember(to)
	f.former = slices.DeleteFunc(f.former, func(l formerLeg) bool { return l.leg == to })
	f.retire(from, now)
	f.turnedAt, f.askedAt = now, time.Time{}
	f.progress.forgive(f.conn.ConnectionStats())
	f.trial = trial{}
	f.retry, f.pause = now, 0
	f.conn.counters.turn()
	f.conn.relayTurned(to.client.present() == nil)
	if f.own {
		f.conn.queueFrame(numbered(frameTurned, to.number))
	}
	notify(f.conn.finder.changed) // the new relay may see another address of this host
	return why
}

// retire gives a leg back after a while.
func (f *failover) retire(g *leg, now time.Time) {
	life := formerLife
	if g.client.draining() {
		life = drainedLife
	}
	f.former = append(f.former, formerLeg{g, now.Add(life)})
	slices.SortStableFunc(f.former, func(a, b formerLeg) int { return a.until.Compare(b.until) })
	if len(f.former) > maxFormer {
		f.drop(f.former[0].leg)
		f.former = slices.Delete(f.former, 0, 1)
	}
}

// drop gives a leg back.
func (f *failover) drop(g *leg) {
	f.link.removeRoute(g)
	e := f.conn.endpoint
	if f.link.twin(g) != nil {
		g.client.legs.forget(g) // the relay has one leg, which is in use
		e.relays.release(g.client)
		return
	}
	f.conn.background.Go(func() {
		g.client.legs.end(context.WithoutCancel(e.ctx), g)
		e.relays.release(g.client)
	})
}

// expire gives back what is not needed any more.
func (f *failover) expire(now time.Time) {
	for len(f.former) > 0 && !f.former[0].until.After(now) {
		f.drop(f.former[0].leg)
		f.former = slices.Delete(f.former, 0, 1)
	}
	if n := &f.next; !n.until.IsZero() && n.leg != nil && !n.until.After(now) {
		f.giveUp(now) // the peer does not answer, or does not know the frames
	}
}

// deadline returns when expire has something to do, or zero.
func (f *failover) deadline() time.Time {
	var at time.Time
	if f.next.leg != nil {
		at = f.next.until
	}
	if len(f.former) > 0 && (at.IsZero() || f.former[0].until.Before(at)) {
		at = f.former[0].until
	}
	return at
}

// handleFrame acts on a frame about relays. It returns why packets go through another relay
// now, or WhyEstablished.
func (f *failover) handleFrame(fr frame, now time.Time) (PathReason, error) {
	switch fr.kind {
	case frameStandby:
		p, err := parseProposal(fr.payload)
		if err == nil && f.link.role == control.Accepter {
			f.proposed(p, now)
		}
		return WhyEstablished, err
	case frameStandbyReady:
		number, result, err := parseStandbyReady(fr.payload)
		if err == nil && f.next.leg != nil && number == f.next.number && f.link.role == control.Dialer {
			return f.answered(result, now), nil
		}
		return WhyEstablished, err
	case frameSpare:
		p, err := parseProposal(fr.payload)
		if r := f.conn.endpoint.list.configured(p.relay); err == nil && f.link.role == control.Accepter &&
			f.conn.endpoint.conf.Standby != NoStandby && f.mayUse(r) && f.allow(now) {
			f.resort.note(usedRelay{relay: r, number: p.number})
		}
		return WhyEstablished, err
	case frameTurned:
		number, _, err := cutVarint(fr.payload)
		if err == nil {
			return f.peerTurned(number, now), nil
		}
		return WhyEstablished, err
	}
	return WhyEstablished, nil
}
