package relay

import (
	"context"
	"sync"
	"time"
)

// maxWaiters bounds the requests that wait at once under one name.
const maxWaiters = 8

// mailbox keeps offers for those that they are addressed to, for a while.
type mailbox struct {
	ttl                     time.Duration
	max, maxEach, maxLength int

	mu    sync.Mutex // guards the following
	boxes map[string]*box
	total int
}

// box is what waits under one name: offers, or those who want one.
type box struct {
	offers  []offer
	waiters int
	sole    uint64        // the latest request of a sole taker
	taker   *client       // whose that is
	changed chan struct{} // closed and replaced when an offer or a sole taker comes
}

type offer struct {
	text    []byte
	expires time.Time
}

func newMailbox(conf *Config) *mailbox {
	return &mailbox{
		ttl:       conf.OfferTTL,
		max:       conf.MaxOffers,
		maxEach:   conf.MaxOffersPerName,
		maxLength: conf.MaxOfferSize,
		boxes:     make(map[string]*box),
	}
}

// put leaves an offer under name.
func (m *mailbox) put(name string, text []byte) error {
	if len(text) > m.maxLength {
		return errOfferSize
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.boxLocked(name)
	defer m.tidyLocked(name, b)
	if m.total >= m.max || len(b.offers) >= m.maxEach {
		return errMailboxFull
	}
	b.offers = append(b.offers, offer{text, time.Now().Add(m.ttl)})
	m.total++
	b.wakeLocked()
	return nil
}

func (b *box) wakeLocked() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// take removes the oldest offer under name. If there is none it waits until
// ctx is done, and returns nil then. A sole taker (nil: whoever takes) who asks again gives up what
// it has asked before. Another connection of the same key is told (errDisplaced),
// unless it is dead.
func (m *mailbox) take(ctx context.Context, name string, sole *client) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.boxLocked(name)
	defer m.tidyLocked(name, b)
	if b.waiters >= maxWaiters && sole == nil {
		return nil, errWaiters
	}
	if sole != nil {
		b.sole++
		b.taker = sole
		b.wakeLocked()
	}
	turn := b.sole
	b.waiters++
	defer func() { b.waiters-- }()
	for b.sole == turn {
		if text := m.popLocked(b, time.Now()); text != nil {
			return text, nil
		}
		changed := b.changed
		m.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-changed:
		}
		m.mu.Lock()
		if ctx.Err() != nil {
			return nil, nil
		}
	}
	if b.taker != sole {
		return nil, errDisplaced
	}
	return nil, nil
}

func (m *mailbox) popLocked(b *box, now time.Time) []byte {
	m.expireLocked(b, now)
	if len(b.offers) == 0 {
		return nil
	}
	text := b.offers[0].text
	b.offers = b.offers[1:]
	m.total--
	return text
}

// expireLocked drops the offers, oldest first, whose time is over.
func (m *mailbox) expireLocked(b *box, now time.Time) {
	for len(b.offers) > 0 && !now.Before(b.offers[0].expires) {
		b.offers = b.offers[1:]
		m.total--
	}
}

func (m *mailbox) boxLocked(name string) *box {
	b := m.boxes[name]
	if b == nil {
		b = &box{changed: make(chan struct{})}
		m.boxes[name] = b
	}
	return b
}

// tidyLocked removes a box that holds nothing.
func (m *mailbox) tidyLocked(name string, b *box) {
	if len(b.offers) == 0 && b.waiters == 0 {
		delete(m.boxes, name)
	}
}

// expire drops what nobody came for.
func (m *mailbox) expire(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, b := range m.boxes {
		m.expireLocked(b, now)
		m.tidyLocked(name, b)
	}
}

func (m *mailbox) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.total
}
