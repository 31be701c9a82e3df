package relay

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/quicway/quicway/internal/control"
)

const (
	// maxWaiters bounds the requests that wait at once under one name.
	maxWaiters = 8
	// offerUnit is how many bytes of the mailbox one offer stands for.
	offerUnit = 4 << 10
	// showAgain is how long an offer under a name that is no key's is kept for
	// the connection that it was shown to: the time to join, or to acknowledge.
	showAgain = 10 * time.Second
)

// mailbox keeps offers for those that they are addressed to, for a while. An offer
// stays until somebody has joined its session, or acknowledged it: whoever was
// handed it may be gone by then.
type mailbox struct {
	ttl                               time.Duration
	max, maxEach, maxLength, maxBytes int

	mu       sync.Mutex // guards the following
	boxes    map[boxName]*box
	sessions map[offerSession]*offer
	shares   shares // all offers
	number   uint64
}

// boxName is where offers lie. A key's owner takes them from whatever account; a
// name that is no key's is each account's own.
type boxName struct {
	text    string
	account accountTag // zero: a key's
}

// sender is whoever leaves offers, as far as the relay can tell.
type sender struct {
	account accountTag
	site    netip.Prefix
}

type offerSession struct {
	account accountTag
	session control.SessionID
}

// box is what waits under one name: offers, or those who want one.
type box struct {
	name    boxName
	offers  []*offer // oldest first
	waiters []*waiter
	changed chan struct{} // closed and replaced when an offer comes, or a waiter is displaced
	// When a sender's offers, and an account's, were last handed out, as a
	// number that grows.
	served   map[sender]uint64
	accounts map[accountTag]uint64
	turn     uint64
}

// waiter is one request for an offer.
type waiter struct {
	client    *client
	displaced bool
	why       error // nil: the same connection asks again
}

type offer struct {
	box     *box
	number  uint64
	from    sender
	session control.SessionID // zero: not said
	text    []byte
	expires time.Time
	shown   []showing // to whom, of late
}

// showing is that an offer was handed to a connection.
type showing struct {
	client *client
	at     time.Time
}

func newMailbox(conf *Config) *mailbox {
	return &mailbox{
		ttl:       conf.OfferTTL,
		max:       conf.MaxOffers,
		maxEach:   conf.MaxOffersPerName,
		maxLength: conf.MaxOfferSize,
		maxBytes:  max(conf.MaxOfferSize, conf.MaxOffers*offerUnit),
		boxes:     make(map[boxName]*box),
		sessions:  make(map[offerSession]*offer),
		shares:    newShares(),
	}
}

// put leaves an offer under name. One of the same session takes the place of that
// which was left before.
func (m *mailbox) put(name boxName, from sender, session control.SessionID, text []byte) error {
	if len(text) > m.maxLength {
		return errOfferSize
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.sessions[offerSession{from.account, session}]; old != nil {
		m.removeLocked(old)
	}
	b := m.boxLocked(name)
	defer m.tidyLocked(b)
	if !m.makeRoomLocked(b, from, len(text)) {
		return errMailboxFull
	}
	m.boxes[name] = b // which may have been emptied
	m.number++
	o := &offer{box: b, number: m.number, from: from, session: session, text: text, expires: time.Now().Add(m.ttl)}
	b.offers = append(b.offers, o)
	m.shares.add(o)
	if session != (control.SessionID{}) {
		m.sessions[offerSession{from.account, session}] = o
	}
	b.wakeLocked()
	return nil
}

// makeRoomLocked has those give way who have more in the box, or in the mailbox,
// than the sender of an offer.
func (m *mailbox) makeRoomLocked(b *box, from sender, size int) bool {
	if m.max < 0 {
		return false
	}
	if len(b.offers) >= m.maxEach {
		here := newShares()
		for _, o := range b.offers {
			here.add(o)
		}
		o := here.giveWay(from)
		if o == nil {
			return false
		}
		m.removeLocked(o)
	}
	for m.shares.total >= m.max || m.shares.bytes+size > m.maxBytes {
		o := m.shares.giveWay(from)
		if o == nil {
			return false
		}
		m.removeLocked(o)
	}
	return true
}

// unshow takes back that an offer was handed to a connection, which has given up
// its request.
func (m *mailbox) unshow(o *offer, c *client) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o.shown = slices.DeleteFunc(o.shown, func(s showing) bool { return s.client == c })
	o.box.wakeLocked()
}

// settle forgets the offer of a session that has been joined, or is over.
func (m *mailbox) settle(account accountTag, session control.SessionID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o := m.sessions[offerSession{account, session}]; o != nil {
		m.removeLocked(o)
	}
}

// acknowledge forgets an offer that its taker has no use for any more.
func (m *mailbox) acknowledge(name boxName, number uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.boxes[name]
	if b == nil {
		return
	}
	for _, o := range b.offers {
		if o.number == number {
			m.removeLocked(o)
			return
		}
	}
}

func (m *mailbox) removeLocked(o *offer) {
	b := o.box
	if i := slices.Index(b.offers, o); i >= 0 {
		b.offers = slices.Delete(b.offers, i, i+1)
	}
	m.shares.remove(o)
	if key := (offerSession{o.from.account, o.session}); m.sessions[key] == o {
		delete(m.sessions, key)
	}
	m.tidyLocked(b)
}

func (b *box) wakeLocked() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// take hands out an offer under name, which stays. If there is none to be shown
// it waits until ctx is done, and returns nil then. A connection of a key's owner
// that asks again gives up what it has asked before. It is shown an offer that it
// was shown already after the time again, if that is not zero.
func (m *mailbox) take(ctx context.Context, name boxName, c *client, again time.Duration) (*offer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.boxLocked(name)
	defer m.tidyLocked(b)
	w, err := b.waitLocked(c)
	if err != nil {
		return nil, err
	}
	defer b.doneLocked(w)
	for !w.displaced {
		now := time.Now()
		m.expireLocked(b, now)
		o, next := b.chooseLocked(c, again, now)
		if o != nil {
			b.showLocked(o, c, now)
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

// sleepUntil waits until ctx is done, something has changed, or a time, if it is
// not zero, has come.
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

// waitLocked makes a request one that waits. A key's owner has one request, the
// latest: the one before is given up if it came on the same connection, and told so if
// it came on another, whose endpoint has the same identity.
func (b *box) waitLocked(c *client) (*waiter, error) {
	var waiting []*waiter
	for _, w := range b.waiters {
		switch {
		case w.displaced:
		case b.sole():
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
	w := &waiter{client: c}
	b.waiters = append(b.waiters, w)
	return w, nil
}

// sole says whether the box is a key's, so that all who take from it are one.
func (b *box) sole() bool { return b.name.account == accountTag{} }

func (b *box) doneLocked(w *waiter) {
	if i := slices.Index(b.waiters, w); i >= 0 {
		b.waiters = slices.Delete(b.waiters, i, i+1)
	}
}

// chooseLocked returns the offer whose turn it is, of those that may be shown to a
// connection: of the account, and then of the sender, that was served longest ago,
// the oldest. Else it says when there may be another, if time alone can tell.
func (b *box) chooseLocked(c *client, again time.Duration, now time.Time) (best *offer, next time.Time) {
	for _, o := range b.offers {
		until := o.hidden(c, again)
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

// hidden says until when an offer is not shown to a connection. What lies under a
// key is shown to each connection of its owner, one of which may be dead; what lies
// under another name is shown to one of all at a time.
func (o *offer) hidden(c *client, again time.Duration) (until time.Time) {
	for _, s := range o.shown {
		var end time.Time
		switch {
		case s.client == c && again == 0:
			end = o.expires
		case s.client == c:
			end = s.at.Add(again)
		case !o.box.sole() && s.client.connected():
			end = s.at.Add(showAgain)
		}
		if end.After(until) {
			until = end
		}
	}
	return until
}

// showLocked notes that an offer is handed to a connection.
func (b *box) showLocked(o *offer, c *client, now time.Time) {
	o.shown = slices.DeleteFunc(o.shown, func(s showing) bool { return s.client == c || !s.client.connected() })
	if len(o.shown) >= 2*maxWaiters {
		o.shown = o.shown[1:]
	}
	o.shown = append(o.shown, showing{c, now})
	b.turn++
	b.served[o.from], b.accounts[o.from.account] = b.turn, b.turn
	if len(b.served) > 4*len(b.offers)+maxWaiters {
		b.forgetServedLocked()
	}
}

// forgetServedLocked forgets when those were served who have nothing here.
func (b *box) forgetServedLocked() {
	served, accounts := b.served, b.accounts
	b.served, b.accounts = make(map[sender]uint64), make(map[accountTag]uint64)
	for _, o := range b.offers {
		b.served[o.from], b.accounts[o.from.account] = served[o.from], accounts[o.from.account]
	}
}

// expireLocked drops the offers, oldest first, whose time is over.
func (m *mailbox) expireLocked(b *box, now time.Time) {
	for len(b.offers) > 0 && !now.Before(b.offers[0].expires) {
		m.removeLocked(b.offers[0])
	}
}

func (m *mailbox) boxLocked(name boxName) *box {
	b := m.boxes[name]
	if b == nil {
		b = &box{name: name, changed: make(chan struct{}), served: make(map[sender]uint64), accounts: make(map[accountTag]uint64)}
		m.boxes[name] = b
	}
	return b
}

// tidyLocked removes a box that holds nothing.
func (m *mailbox) tidyLocked(b *box) {
	if len(b.offers) == 0 && len(b.waiters) == 0 && m.boxes[b.name] == b {
		delete(m.boxes, b.name)
	}
}

// expire drops what nobody came for.
func (m *mailbox) expire(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.boxes {
		m.expireLocked(b, now)
	}
}

func (m *mailbox) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.shares.total
}
