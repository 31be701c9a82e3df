package relay

import (
	"context"
	"errors"
	"time"

	"github.com/quicway/quicway/cid"
)

// routeTable is where the connection IDs of legs are written: the store, which the
// forwarding loops ask, or the offload.
type routeTable interface {
	// putRoute says which leg is behind an ID.
	putRoute(id cid.ID, a cid.Association)
	// deleteRoute removes the route that was put for an ID.
	deleteRoute(id cid.ID, a cid.Association)
}

// knownIDs is the range of a leg's counters whose IDs a table knows.
type knownIDs struct {
	table    routeTable
	counters cid.Range
	// putFirst makes moveTo put new routes before it deletes old ones, so that the table is
	// never without a route of the leg. It needs room for both ranges meanwhile.
	putFirst bool
}

// moveTo deletes the routes of counters that are not in the new range, and puts those
// of counters that were not in the old one.
func (k *knownIDs) moveTo(l *leg, now cid.Range) {
	old := k.counters
	if now == old {
		return
	}
	ids := l.key.Deriver(cid.Peer)
	if k.putFirst {
		k.put(l, ids, now, old)
	}
	for c := old.Lo; c < old.Hi; c++ {
		if !contains(now, c) {
			k.table.deleteRoute(ids.ID(c), l.association(c))
		}
	}
	if !k.putFirst {
		k.put(l, ids, now, old)
	}
	k.counters = now
}

// put puts the routes of counters in a range, except those in another one. ids makes the IDs
// of the leg.
func (k *knownIDs) put(l *leg, ids *cid.Deriver, counters, except cid.Range) {
	for c := counters.Lo; c < counters.Hi; c++ {
		if !contains(except, c) {
			k.table.putRoute(ids.ID(c), l.association(c))
		}
	}
}

// renew puts all routes again, before they expire in the table.
func (k *knownIDs) renew(l *leg) { k.put(l, l.key.Deriver(cid.Peer), k.counters, cid.Range{}) }

// clear deletes all routes.
func (k *knownIDs) clear(l *leg) { k.moveTo(l, cid.Range{}) }

func contains(r cid.Range, counter uint64) bool { return r.Lo <= counter && counter < r.Hi }

// association is what the tables store about an ID of the leg.
func (l *leg) association(counter uint64) cid.Association {
	return cid.Association{Owner: l.owner, Session: l.session.num, Leg: uint8(l.role), Counter: counter}
}

// syncStoreLocked makes the store know the IDs of the leg's window.
func (l *leg) syncStoreLocked() {
	lo, hi := l.window.Bounds()
	l.inStore.moveTo(l, cid.Range{Lo: lo, Hi: hi})
	if l.env().offload.idsPerLeg() == 0 {
		l.due.Store(l.window.Due())
	}
}

// renewLocked makes the store know the leg's IDs for another period.
func (l *leg) renewLocked(now time.Time) {
	owner := l.owner
	l.routedOwner.Store(&owner)
	l.inStore.renew(l)
	l.syncStoreLocked()
	l.storedUntil = now.Add(l.env().store.ttl)
}

// slideLocked slides the leg's window after a packet with the ID of a counter, so that
// the IDs that the sender will use next are known before it uses them.
func (l *leg) slideLocked(counter uint64) {
	if lo, hi := l.window.Bounds(); !l.present || counter < lo || counter >= hi {
		return
	}
	if counter >= l.window.Due() {
		l.window.Hit(counter)
		l.syncStoreLocked()
	}
	l.latePackets.Store(0)
	l.offloadAroundLocked(counter)
}

// learnInitialLocked routes the random ID of the dialer's first flight to the leg,
// which is the accepter's. It fails if the ID is another leg's.
func (l *leg) learnInitialLocked(id cid.ID, now time.Time) error {
	if id.IsZero() || id == l.initial {
		return nil
	}
	e := l.env()
	if err := e.store.Put(id, l.association(noCounter), e.conf.OfferTTL); err != nil {
		return err
	}
	l.forgetInitialLocked()
	l.initial, l.initialUntil = id, now.Add(e.conf.OfferTTL)
	return nil
}

func (l *leg) forgetInitialLocked() {
	if l.initial.IsZero() {
		return
	}
	l.env().store.deleteRoute(l.initial, l.association(noCounter))
	l.initial = cid.ID{}
}

// maxHits is how many hits can wait for the slider. A leg has at most one of them.
const maxHits = 4096

// hit is a packet in the upper half of a leg's window.
type hit struct {
	leg     *leg
	counter uint64
}

// slider slides windows in a goroutine of its own, because the forwarding loops must
// wait neither for a session's lock nor for the store.
type slider struct {
	hits  chan hit
	store *idStore
}

func newSlider(store *idStore, max int) *slider {
	return &slider{hits: make(chan hit, max), store: store}
}

// hit asks for the window of a leg to be slid. It never blocks. If the queue is full,
// the hit is counted as an error of the store, and a later packet asks again.
func (s *slider) hit(l *leg, counter uint64) {
	if !l.hitQueued.CompareAndSwap(false, true) {
		return
	}
	select {
	case s.hits <- hit{l, counter}:
	default:
		l.hitQueued.Store(false)
		s.store.failed(errSlow)
	}
}

// errSlow is logged when hits come faster than the store takes IDs.
var errSlow = errors.New("the store is too slow")

// run slides windows until ctx is done.
func (s *slider) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case h := <-s.hits:
			h.leg.hitQueued.Store(false)
			h.leg.slide(h.counter)
		}
	}
}

func (l *leg) slide(counter uint64) {
	l.session.mu.Lock()
	defer l.session.mu.Unlock()
	l.slideLocked(counter)
}
