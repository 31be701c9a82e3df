package p2p

import (
	"maps"
	"slices"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// Timing of the search for a standby relay.
const (
	// proposalPatience is how long the peer may take to register at a standby relay.
	proposalPatience = 10 * time.Second
	// firstProposalPause is the pause after a proposal that has failed. It doubles each
	// time, up to lastProposalPause.
	firstProposalPause = time.Second
	lastProposalPause  = time.Minute
	// seekEvery is how often a standby relay is looked for while none can be used.
	seekEvery = time.Second
	// nearerEvery is the shortest time after a turn before a connection goes to a relay
	// only because it is nearer.
	nearerEvery = 5 * time.Minute
	// proposalEvery is the average time between two proposals of the peer's, and
	// proposalBurst how many may come at once.
	proposalEvery = 2 * time.Second
	proposalBurst = 8
)

// opening is a standby that is being prepared. The zero value: none.
type opening struct {
	proposal
	until time.Time // when it has failed
	at    Relay     // the proposal's, or as this side knows it
	leg   *leg      // at the dialer, once it is registered
	home  bool      // it is to carry, because it is nearer
}

// avoided is why a relay is no standby for a while.
type avoided struct {
	until time.Time
	dead  *controlConn // not any more, if there is another control connection; nil: it is
}

// seek proposes a standby relay, if there is none that can be used. Only the dialer does.
// It returns when to look again.
func (f *failover) seek(now time.Time) time.Time {
	e := f.conn.endpoint
	if f.link.role != control.Dialer || e.conf.Standby == NoStandby || !e.list.hasSeveral() {
		return f.deadline()
	}
	f.tell(now)
	switch {
	case !f.next.until.IsZero():
		return f.deadline()
	case f.retry.After(now):
		return earliest(now, f.retry, f.deadline())
	}
	home := f.isFarFromHome(now)
	if f.isReady(now) && !home {
		return earliest(now, now.Add(seekEvery), f.deadline())
	}
	relay, ok := f.pick(home, now)
	if !ok {
		e.list.want()
		f.retry = now.Add(seekEvery)
		return f.retry
	}
	f.number++
	f.next = opening{proposal: proposal{number: f.number}, at: relay, home: home, until: now.Add(proposalPatience)}
	f.open(relay, "")
	return f.next.until
}

// isFarFromHome says whether the connection should go to a nearer relay.
func (f *failover) isFarFromHome(now time.Time) bool {
	if now.Sub(f.turnedAt) < nearerEvery || now.Sub(f.conn.began) < nearerEvery {
		return false
	}
	order := f.conn.endpoint.list.order()
	return len(order) > 0 && order[0].usable() && !f.carriesAt(order[0].Relay)
}

// carriesAt says whether a relay is the one that carries, as far as this side knows, though
// it may be configured under another name or address.
func (f *failover) carriesAt(r Relay) bool {
	carrier, other := f.link.leg().facts(), relayFacts{relay: r}
	if c := f.conn.endpoint.relays.find(r); c != nil {
		other = c.facts()
	}
	return r.same(carrier.relay) || carrier.isTwin(&other)
}

// pick chooses a standby relay: the nearest one in another zone than the relay that
// carries, or else the nearest one. home chooses the nearest one of all.
func (f *failover) pick(home bool, now time.Time) (Relay, bool) {
	carrier := f.link.leg().client.relay
	var found []Relay
	for i, s := range f.conn.endpoint.list.order() {
		if !s.usable() || f.carriesAt(s.Relay) || f.avoids(s.Relay, now) || home && i > 0 {
			continue
		}
		if home || carrier.Zone == "" || s.Relay.Zone != carrier.Zone {
			return s.Relay, true
		}
		found = append(found, s.Relay)
	}
	if len(found) == 0 {
		return Relay{}, false
	}
	return found[0], true
}

// open registers the leg at a relay, in the background. join is the token that the peer
// names. A leg that is there already is refreshed.
func (f *failover) open(r Relay, join string) {
	var known *leg
	for _, g := range f.link.routes.Load().others {
		if g.client.relay.key() == r.key() {
			known = g
		}
	}
	f.former = slices.DeleteFunc(f.former, func(l formerLeg) bool { return l.leg == known })
	f.conn.background.Go(func() {
		o := f.conn.openLeg(r, join, known)
		if o.err != nil && known != nil {
			o.leg = known // its owner is still the link
		}
		f.opened <- o
	})
}

// mayUse says whether this side uses a relay that the peer names: one of its own relays, or
// one of the operator of the relay that carries.
func (f *failover) mayUse(r Relay) bool {
	return f.conn.endpoint.list.isOwn(r) || r.isOfOperator(f.link.leg().client.relay)
}

// registered takes the result of open.
func (f *failover) registered(o openedLeg, now time.Time) {
	f.merge(&o)
	if o.err == nil && o.leg.carries() {
		o.leg, o.err = nil, errTwin
	}
	if o.err != nil {
		f.conn.endpoint.log.Debug("cannot register at a standby relay", "relay", f.next.at.Addr, "err", o.err)
		if f.link.role == control.Accepter {
			f.conn.queueFrame(standbyReady(f.next.number, standbyRefused))
		}
		f.next.leg = o.leg
		f.giveUp(now)
		return
	}
	o.leg.number = f.next.number
	f.link.addRoute(o.leg)
	if f.link.role == control.Accepter {
		f.adopt(o.leg, now)
		f.conn.queueFrame(standbyReady(f.next.number, standbyRegistered))
		f.next = opening{}
		return
	}
	f.next.leg, f.next.relay, f.next.token = o.leg, o.relay, o.join
	f.next.until = now.Add(proposalPatience)
	f.conn.queueFrame(f.next.frame(frameStandby))
}

// adopt makes a leg the standby, unless it carries already. The one before is given back
// after a while.
func (f *failover) adopt(g *leg, now time.Time) {
	if g.carries() {
		return
	}
	if old := f.standby; old != nil && old != g {
		f.retire(old, now)
	}
	f.standby, f.pause = g, 0
	f.resort.agreed = true
	f.resort.remember(g)
}

// giveUp ends the preparation of a standby that has failed.
func (f *failover) giveUp(now time.Time) {
	if g := f.next.leg; g != nil && g != f.standby && !g.carries() {
		f.retire(g, now)
	}
	f.pause = min(max(2*f.pause, firstProposalPause), lastProposalPause)
	f.retry = now.Add(f.pause)
	f.avoid(f.next.at, avoided{until: now.Add(4 * f.pause)}, now)
	f.next = opening{}
}

// avoid has a relay not chosen as a standby for a while.
func (f *failover) avoid(r Relay, a avoided, now time.Time) {
	maps.DeleteFunc(f.refused, func(_ relayKey, a avoided) bool { return !a.until.After(now) })
	if len(f.refused) < maxRelays {
		f.refused[r.key()] = a
	}
}

// avoids says whether a relay must not be chosen as a standby now.
func (f *failover) avoids(r Relay, now time.Time) bool {
	a, ok := f.refused[r.key()]
	if !ok || !a.until.After(now) {
		return false
	}
	c := f.conn.endpoint.relays.find(r)
	restarted := a.dead != nil && c != nil && c.present() != nil && c.present() != a.dead
	return !restarted
}

// proposed registers at the relay that the dialer proposes, unless it does so already for
// another proposal, or there are too many.
func (f *failover) proposed(p proposal, now time.Time) {
	r := f.conn.endpoint.list.configured(p.relay)
	busy := !f.next.until.IsZero() || p.number <= f.number
	if busy || f.conn.endpoint.conf.Standby == NoStandby || !f.mayUse(r) || !f.allow(now) || r.key() == f.link.leg().client.relay.key() {
		f.conn.queueFrame(standbyReady(p.number, standbyRefused))
		return
	}
	f.number = p.number
	f.next = opening{proposal: p, at: r, until: now.Add(proposalPatience)}
	f.open(r, p.token)
}

// allow says whether the peer may propose a standby relay now. Each proposal may make this
// host connect to another relay.
func (f *failover) allow(now time.Time) bool {
	if earliest := now.Add(-proposalBurst * proposalEvery); f.spent.Before(earliest) {
		f.spent = earliest
	}
	if f.spent.Add(proposalEvery).After(now) {
		return false
	}
	f.spent = f.spent.Add(proposalEvery)
	return true
}

// answered takes the accepter's answer to the proposal.
func (f *failover) answered(result uint64, now time.Time) PathReason {
	if result != standbyRegistered {
		f.giveUp(now)
		return WhyEstablished
	}
	home := f.next.home
	f.adopt(f.next.leg, now)
	f.next = opening{}
	if f.standby == nil {
		return WhyEstablished
	}
	f.conn.endpoint.log.Info("standby relay", "peer", f.conn.remote, "relay", f.standby.client.relay.Addr)
	if home && f.isReady(now) {
		return f.turn(f.standby, WhyRelayNearer, now)
	}
	return WhyEstablished
}
