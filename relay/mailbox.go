package relay

import (
	"bytes"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// offerUnit is how many bytes the mailbox holds for each offer of MaxOffers.
const offerUnit = 4 << 10

// mailbox keeps offers until their session has been joined, they are acknowledged, or
// they expire. An offer that was handed out stays, because the client that got it may be
// gone.
type mailbox struct {
	ttl                               time.Duration
	max, maxEach, maxLength, maxBytes int
	evicted                           func(offerSession) // called when another offer has taken the room of that of a session

	mu       sync.Mutex // guards the following
	boxes    map[boxName]*box
	sessions map[offerSession]*offer
	shares   shares // of all offers
	number   uint64 // of the latest offer
}

// boxName identifies a box. A box whose name is the ID of a key has the offers of all
// accounts to the owner of the key. Under a free name each account has a box of its own.
type boxName struct {
	text    string
	account accountTag // zero: the name is the ID of a key
}

// sender is a party that leaves offers, as far as the relay can tell parties apart.
type sender struct {
	account accountTag
	site    netip.Prefix
}

type offerSession struct {
	account accountTag
	session control.SessionID
}

// box holds the offers under one name, and the requests that wait for one.
type box struct {
	name    boxName
	offers  []*offer // oldest first
	waiters []*waiter
	changed chan struct{} // closed and replaced when an offer comes, or a waiter is displaced

	// The turn at which an offer of a sender, and of an account, was last handed out.
	served   map[sender]uint64
	accounts map[accountTag]uint64
	turn     uint64
}

type offer struct {
	box     *box
	number  uint64
	from    sender
	session control.SessionID // zero: not known
	text    []byte
	expires time.Time
	handed  []handout // the latest ones
}

func newMailbox(conf *Config) *mailbox {
	return &mailbox{
		ttl:       conf.OfferTTL,
		max:       conf.MaxOffers,
		maxEach:   conf.MaxOffersPerName,
		maxLength: conf.MaxOfferSize,
		maxBytes:  max(conf.MaxOfferSize, min(conf.MaxOffers, math.MaxInt/offerUnit)*offerUnit),
		boxes:     make(map[boxName]*box),
		sessions:  make(map[offerSession]*offer),
		shares:    newShares(),
	}
}

// put leaves an offer under name. It replaces an earlier offer of the same session, but keeps the place
// of one that is the same: dialers leave an offer again that may have been lost.
func (m *mailbox) put(name boxName, from sender, session control.SessionID, text []byte) error {
	switch {
	case m.max < 0:
		return errNoMailbox
	case len(text) > m.maxLength:
		return errOfferSize
	}
	evicted, err := m.putEvicting(name, from, session, text)
	for _, session := range evicted {
		m.evicted(session)
	}
	return err
}

// putEvicting is put without limits of the offer itself. It returns the sessions whose offers it has
// removed to make room.
func (m *mailbox) putEvicting(name boxName, from sender, session control.SessionID, text []byte) (evicted []offerSession, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.sessions[offerSession{from.account, session}]; old != nil {
		if old.box.name == name && old.from == from && bytes.Equal(old.text, text) && time.Now().Before(old.expires) {
			return nil, nil
		}
		m.removeLocked(old)
	}
	b := m.boxLocked(name)
	defer m.removeIfEmptyLocked(b)
	evicted, ok := m.makeRoomLocked(b, from, len(text))
	if !ok {
		return evicted, errMailboxFull
	}
	m.boxes[name] = b // makeRoomLocked may have removed it
	m.number++
	o := &offer{box: b, number: m.number, from: from, session: session, text: text, expires: time.Now().Add(m.ttl)}
	b.offers = append(b.offers, o)
	m.shares.add(o)
	if session != (control.SessionID{}) {
		m.sessions[offerSession{from.account, session}] = o
	}
	b.wakeLocked()
	return evicted, nil
}

// makeRoomLocked makes room for an offer in the box, and in the mailbox, by removing
// offers of senders that have more there than the sender of the new one. It returns the sessions
// of these offers, and false if that is not enough.
func (m *mailbox) makeRoomLocked(b *box, from sender, size int) (evicted []offerSession, ok bool) {
	evict := func(o *offer) bool {
		if o == nil {
			return false
		}
		evicted = append(evicted, offerSession{o.from.account, o.session})
		m.removeLocked(o)
		return true
	}
	if len(b.offers) >= m.maxEach {
		here := newShares()
		for _, o := range b.offers {
			here.add(o)
		}
		if !evict(here.victim(from)) {
			return evicted, false
		}
	}
	for m.shares.total >= m.max || m.shares.bytes+size > m.maxBytes {
		if !evict(m.shares.victim(from)) {
			return evicted, false
		}
	}
	return evicted, true
}

// removeSession removes the offer of a session that has been joined, or is over.
func (m *mailbox) removeSession(account accountTag, session control.SessionID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o := m.sessions[offerSession{account, session}]; o != nil {
		m.removeLocked(o)
	}
}

// acknowledge removes an offer that the client that got it needs no more.
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
	m.removeIfEmptyLocked(b)
}

// expireLocked removes the expired offers of a box. The oldest ones expire first.
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

// removeIfEmptyLocked removes a box that has neither offers nor waiters.
func (m *mailbox) removeIfEmptyLocked(b *box) {
	if len(b.offers) == 0 && len(b.waiters) == 0 && m.boxes[b.name] == b {
		delete(m.boxes, b.name)
	}
}

// expire removes the expired offers.
func (m *mailbox) expire(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.boxes {
		m.expireLocked(b, now)
	}
}
