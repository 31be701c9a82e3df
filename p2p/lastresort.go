package p2p

import (
	"slices"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// Timing of the last resort.
const (
	// resortAfter is the silence after which a connection without a standby relay tries
	// all relays that it has used, and resortAnyway the same if the relay that carries
	// answers this side.
	resortAfter  = forwardPatience
	resortAnyway = 10 * time.Second
	// resortEvery is how often it tries.
	resortEvery = 2 * time.Second
	// maxUsed bounds the relays that a connection remembers, and maxSpares those of them
	// that the dialer names.
	maxUsed   = 6
	maxSpares = 3
	// tellEvery is how often the dialer looks whether it has others to name.
	tellEvery = 5 * time.Second
)

// lastResort finds the peer again when the relay that carries has died and there is no
// standby relay, so that the peers cannot agree on another one. Both sides register at all
// relays that the connection has used, or that the dialer has named. The dialer sends through
// one after the other, and the accepter follows its packets. Used only by the pathfinder's run
// goroutine.
type lastResort struct {
	agreed bool        // the peers have had a standby relay
	used   []usedRelay // the latest maxUsed
	told   []Relay     // what the dialer has named
	tell   time.Time   // when to look whether there are others
	next   time.Time   // when to try again
	found  chan openedLeg
	open   int // registrations under way
}

// usedRelay is a relay that both sides know, and its number.
type usedRelay struct {
	relay  Relay
	number uint64
	leg    *leg // the last one there; nil: none
}

// token is what admits the leg there without another relay's word, or "".
func (u *usedRelay) token() string {
	if u.leg == nil {
		return ""
	}
	return u.leg.resume()
}

// remember takes note of a leg that has been registered.
func (r *lastResort) remember(g *leg) { r.note(usedRelay{g.client.relay, g.number, g}) }

// note takes note of a relay that both sides know.
func (r *lastResort) note(relay usedRelay) {
	r.used = slices.DeleteFunc(r.used, func(u usedRelay) bool { return u.relay.same(relay.relay) })
	if len(r.used) == maxUsed {
		r.used = slices.Delete(r.used, 0, 1)
	}
	r.used = append(r.used, relay)
}

// tell names the first relays of this side's order to the accepter, when they change.
func (f *failover) tell(now time.Time) {
	r := &f.resort
	if r.tell.After(now) {
		return
	}
	r.tell = now.Add(tellEvery)
	order := f.conn.endpoint.list.order()
	var spares []Relay
	for _, s := range order[:min(len(order), maxSpares)] {
		spares = append(spares, Relay{Addr: s.Relay.Addr, Pin: s.Relay.Pin})
	}
	named := func(r Relay) bool { return slices.ContainsFunc(f.resort.told, r.same) }
	for _, relay := range spares {
		if known := slices.ContainsFunc(r.used, func(u usedRelay) bool { return u.relay.same(relay) }); !named(relay) && !known {
			f.number++
			f.conn.queueFrame(proposal{number: f.number, relay: relay}.frame(frameSpare))
			r.note(usedRelay{relay: f.conn.endpoint.list.configured(relay), number: f.number})
		}
	}
	r.told = spares
}

// seekPeer does what is due of the last resort. It returns when to look again, and why
// packets go through another relay now, or WhyEstablished.
func (f *failover) seekPeer(now time.Time) (time.Time, PathReason) {
	r, carrier := &f.resort, f.link.leg().client
	silence, owed := f.silence(now)
	if !r.agreed || silence < resortAfter || owed < fatalPackets || f.isReady(now) {
		return time.Time{}, WhyEstablished
	}
	dead := carrier.present() == nil || carrier.unanswered(now) >= standbyPatience
	if !dead && silence < resortAnyway {
		carrier.ask(now, askAgain)
		return now.Add(askAgain), WhyEstablished
	}
	if r.next.After(now) {
		return r.next, WhyEstablished
	}
	r.next = now.Add(resortEvery)
	if r.open == 0 {
		f.openUsed()
	}
	if f.link.role == control.Accepter {
		return r.next, WhyEstablished
	}
	for _, g := range f.link.routes.Load().others { // the one that carried last is the last of them
		known := slices.ContainsFunc(r.used, func(u usedRelay) bool { return u.relay.same(g.client.relay) })
		if known && g.isRegistered.Load() && g.client.present() != nil && g.client.unanswered(now) < standbyPatience {
			return r.next, f.turn(g, WhyRelayDied, now)
		}
	}
	return r.next, WhyEstablished
}

// openUsed registers the leg at the relays that the connection has used, and at which it is
// not registered.
func (f *failover) openUsed() {
	r, e := &f.resort, f.conn.endpoint
	var foreign int
	for _, u := range r.used {
		if slices.ContainsFunc(f.link.legs(), func(g *leg) bool { return g.client.relay.same(u.relay) }) {
			continue // its client registers it again
		}
		if u.relay.same(f.next.at) {
			continue // open registers it
		}
		if !e.list.isOwn(u.relay) {
			if foreign++; foreign > 1 {
				continue
			}
			defer r.note(u) // the next time, it is another one's turn
		}
		f.resort.open++
		f.conn.background.Go(func() {
			o := f.conn.openLeg(u.relay, u.token(), nil)
			if o.leg != nil {
				o.leg.number = u.number
			}
			f.resort.found <- o
		})
	}
}

// foundRelay takes a result of openUsed.
func (f *failover) foundRelay(o openedLeg, now time.Time) {
	f.resort.open--
	number := uint64(0)
	if o.err == nil {
		number = o.leg.number
	}
	f.merge(&o)
	switch {
	case o.err != nil || o.leg.carries():
	case o.leg == f.standby || o.leg == f.next.leg:
	default:
		o.leg.number = number
		f.link.addRoute(o.leg)
		f.retire(o.leg, now) // unless the peer is there
	}
}
