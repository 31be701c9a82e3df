package p2p

import (
	"fmt"
	"sync"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// maxUsedOffers bounds the offers that an endpoint remembers.
const maxUsedOffers = 1 << 16

// usedOffers remembers which offers an endpoint has answered, so that each is answered
// once.
type usedOffers struct {
	mu      sync.Mutex                      // guards the following
	expires map[control.SessionID]time.Time // when each can be forgotten
	pruned  time.Time                       // when expired ones were last removed
}

func newUsedOffers() usedOffers {
	return usedOffers{expires: make(map[control.SessionID]time.Time)}
}

// claim marks an offer as used. It returns errClaimed if that has been done before, and
// another ErrOfferUsed if there are too many to remember.
func (u *usedOffers) claim(o *Offer) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.expires) >= maxUsedOffers {
		u.pruneLocked(time.Now())
	}
	_, taken := u.expires[o.session]
	switch {
	case taken:
		return errClaimed
	case len(u.expires) >= maxUsedOffers:
		return fmt.Errorf("%w, or may have been: too many used offers have not expired yet", ErrOfferUsed)
	}
	u.expires[o.session] = o.expires
	return nil
}

// unclaim forgets an offer that has led to no connection, and may be tried again.
func (u *usedOffers) unclaim(o *Offer) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.expires, o.session)
}

// len returns the number of offers that are remembered.
func (u *usedOffers) len() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.expires)
}

// pruneLocked forgets expired offers, once a second at most.
func (u *usedOffers) pruneLocked(now time.Time) {
	if now.Sub(u.pruned) < time.Second {
		return
	}
	u.pruned = now
	for session, expires := range u.expires {
		if now.After(expires) {
			delete(u.expires, session)
		}
	}
}
