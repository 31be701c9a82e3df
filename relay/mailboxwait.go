package relay

import (
	"context"
	"slices"
	"time"
)

const (
	// maxWaiters bounds the requests that wait at once for offers under one name.
	maxWaiters = 8
	// handoutAgain is how long an offer under a free name is reserved for the
	// connection that got it, which joins the session or acknowledges the offer in
	// that time. A free name is one that is not the ID of a key.
	handoutAgain = 10 * time.Second
)

// waiter is one request for offers.
type waiter struct {
	box       *box
	client    *client
	wake      func() // called when changed is closed; it must not block. nil: take waits for changed
	displaced bool   // by a later request for the same offers
	why       error  // nil: the later request came on the same connection
}

// handout records that an offer was handed to a connection, for a request.
type handout struct {
	waiter *waiter
	at     time.Time
}

// undoHandout forgets that an offer was handed to a connection, because the connection
// has given up its request.
func (m *mailbox) undoHandout(o *offer, c *client) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o.handed = slices.DeleteFunc(o.handed, func(h handout) bool { return h.waiter.client == c })
	o.box.wakeLocked()
}

// undoHandouts forgets that offers were handed to a waiter, which has given up its request: those
// that have been neither acknowledged nor joined.
func (m *mailbox) undoHandouts(w *waiter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	undone := false
	for _, o := range w.box.offers {
		n := len(o.handed)
		o.handed = slices.DeleteFunc(o.handed, func(h handout) bool { return h.waiter == w })
		undone = undone || len(o.handed) < n
	}
	if undone {
		w.box.wakeLocked()
	}
}

// wakeLocked wakes all waiters of a box.
func (b *box) wakeLocked() {
	close(b.changed)
	b.changed = make(chan struct{})
	for _, w := range b.waiters {
		if w.wake != nil {
			w.wake()
		}
	}
}

// take hands out an offer under name, and keeps it. If there is none that the client may
// get, take waits until ctx is done, and returns nil then. If the name is the ID of a key,
// a later call for it ends an earlier one. The client gets an offer again that it has got
// already after the time again has passed, or, if again is zero, never.
func (m *mailbox) take(ctx context.Context, name boxName, c *client, again time.Duration) (*offer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.boxLocked(name)
	defer m.removeIfEmptyLocked(b)
	w, err := b.waitLocked(c, nil)
	if err != nil {
		return nil, err
	}
	defer b.doneLocked(w)
	for !w.displaced {
		now := time.Now()
		m.expireLocked(b, now)
		o, next := b.chooseLocked(c, again, now)
		if o != nil {
			b.handOutLocked(o, w, now)
			return o, nil
		}
		changed := b.changed
		m.mu.Unlock()
		sleepUntil(ctx, next, changed)
		m.mu.Lock()
		if ctx.Err() != nil {
			return nil, nil
		}
	}
	return nil, w.why
}

// sleepUntil waits until ctx is done, changed is closed, or the time next has come. The
// zero time never comes.
func sleepUntil(ctx context.Context, next time.Time, changed <-chan struct{}) {
	var due <-chan time.Time
	if !next.IsZero() {
		timer := time.NewTimer(time.Until(next))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
	case <-changed:
	case <-due:
	}
}

// wait adds a waiter for the offers under name. wake is called when there may be one, or the
// waiter has been displaced.
func (m *mailbox) wait(name boxName, c *client, wake func()) (*waiter, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.boxLocked(name)
	defer m.removeIfEmptyLocked(b)
	return b.waitLocked(c, wake)
}

// next hands out an offer to a waiter, as take does. If there is none, it returns when there
// will be one, or the zero time if that is not known. It returns an error if the waiter has
// been displaced: errSuperseded if by a request on the same connection.
func (m *mailbox) next(w *waiter, again time.Duration) (o *offer, next time.Time, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case w.displaced && w.why == nil:
		return nil, time.Time{}, errSuperseded
	case w.displaced:
		return nil, time.Time{}, w.why
	}
	now := time.Now()
	m.expireLocked(w.box, now)
	if o, next = w.box.chooseLocked(w.client, again, now); o != nil {
		w.box.handOutLocked(o, w, now)
	}
	return o, next, nil
}

// leave removes a waiter.
func (m *mailbox) leave(w *waiter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w.box.doneLocked(w)
	m.removeIfEmptyLocked(w.box)
}

// waitLocked adds a waiter. The owner of a key has one waiter, the latest: it displaces
// an earlier one. The earlier one gets an error if it came on another connection, whose
// endpoint has the same identity then.
func (b *box) waitLocked(c *client, wake func()) (*waiter, error) {
	var waiting []*waiter
	for _, w := range b.waiters {
		switch {
		case w.displaced:
		case b.keyed():
			w.displaced = true
			if w.client != c {
				w.why = errDisplaced
			}
		default:
			waiting = append(waiting, w)
		}
	}
	if len(waiting) >= maxWaiters {
		return nil, errWaiters
	}
	b.wakeLocked()
	w := &waiter{box: b, client: c, wake: wake}
	b.waiters = append(b.waiters, w)
	return w, nil
}

// keyed says whether the name of the box is the ID of a key, so that all its waiters are
// connections of one owner.
func (b *box) keyed() bool { return b.name.account == accountTag{} }

func (b *box) doneLocked(w *waiter) {
	w.wake = nil // an offer may remember the waiter for longer, but not the request
	if i := slices.Index(b.waiters, w); i >= 0 {
		b.waiters = slices.Delete(b.waiters, i, i+1)
	}
}

// chooseLocked returns the next offer for a connection: of the account, and then of the
// sender, that was served longest ago, the oldest offer. If there is none for the
// connection now, it returns when there will be one, or the zero time if that is not known.
func (b *box) chooseLocked(c *client, again time.Duration, now time.Time) (best *offer, next time.Time) {
	for _, o := range b.offers {
		until := o.hiddenUntil(c, again)
		switch {
		case !until.After(now):
			if best == nil || b.precedesLocked(o, best) {
				best = o
			}
		case next.IsZero() || until.Before(next):
			next = until
		}
	}
	return best, next
}

func (b *box) precedesLocked(o, than *offer) bool {
	if a, t := b.accounts[o.from.account], b.accounts[than.from.account]; a != t {
		return a < t
	}
	return b.served[o.from] < b.served[than.from]
}

// hiddenUntil returns until when an offer is not handed to a connection. An offer to a key
// goes to every connection of the key's owner, because some may be dead. An offer under a
// free name goes to one connection at a time.
func (o *offer) hiddenUntil(c *client, again time.Duration) (until time.Time) {
	for _, h := range o.handed {
		var end time.Time
		switch {
		case h.waiter.client == c && again == 0:
			end = o.expires
		case h.waiter.client == c:
			end = h.at.Add(again)
		case !o.box.keyed() && h.waiter.client.connected():
			end = h.at.Add(handoutAgain)
		}
		if end.After(until) {
			until = end
		}
	}
	return until
}

// handOutLocked notes that an offer is handed to a waiter.
func (b *box) handOutLocked(o *offer, w *waiter, now time.Time) {
	c := w.client
	o.handed = slices.DeleteFunc(o.handed, func(h handout) bool { return h.waiter.client == c || !h.waiter.client.connected() })
	if len(o.handed) >= 2*maxWaiters {
		o.handed = o.handed[1:]
	}
	o.handed = append(o.handed, handout{w, now})
	b.turn++
	b.served[o.from], b.accounts[o.from.account] = b.turn, b.turn
	if len(b.served) > 4*len(b.offers)+maxWaiters {
		b.forgetServedLocked()
	}
}

// forgetServedLocked forgets the turns of senders that have no offer here.
func (b *box) forgetServedLocked() {
	served, accounts := b.served, b.accounts
	b.served, b.accounts = make(map[sender]uint64), make(map[accountTag]uint64)
	for _, o := range b.offers {
		b.served[o.from], b.accounts[o.from.account] = served[o.from], accounts[o.from.account]
	}
}
