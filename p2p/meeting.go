package p2p

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"
)

// With more than mailboxRelays relays, the first ones of two peers' orders need not have one in
// common. So the accepter's ID chooses relays at which it waits as well, and the dialer leaves
// its offer there: rendezvous hashing (Thaler and Ravishankar, 1998), so that lists which differ
// a little still choose the same relays.
const (
	// meetingRelays is the number of relays that the ID chooses.
	meetingRelays = 2
	// copyAfter is how long a dialer waits for the peer before it leaves the offer at the
	// next relay as well, and putPatience how long a relay may take to take the offer.
	copyAfter   = time.Second
	putPatience = 2 * time.Second
)

// meeting returns the relays of an order that the ID of an accepter chooses; nil if the
// accepter waits at all of them.
func (s *relayList) meeting(accepter PeerID, order []RelayStatus) []Relay {
	order = slices.DeleteFunc(slices.Clone(order), func(st RelayStatus) bool { return !s.isOwn(st.Relay) })
	if len(order) <= mailboxRelays {
		return nil
	}
	slices.SortStableFunc(order, func(a, b RelayStatus) int {
		x, y := meetingHash(accepter, a.Relay), meetingHash(accepter, b.Relay)
		return cmp.Or(cmp.Compare(a.unfit(), b.unfit()), bytes.Compare(x[:], y[:]))
	})
	var relays []Relay
	for _, st := range order[:meetingRelays] {
		relays = append(relays, st.Relay)
	}
	return relays
}

// meetingHash is the rank of a relay for an accepter. The address alone counts: peers may know
// a relay with and without its pin.
func meetingHash(accepter PeerID, r Relay) [sha256.Size]byte {
	return sha256.Sum256([]byte(accepter.String() + " " + r.Addr))
}

// leaveAtMeeting leaves the offer at the relays that meeting has returned, one after the other. If it is
// taken already, it is at the relay where the peer is expected first.
func (o *offering) leaveAtMeeting(ctx context.Context) error {
	mayWait := slices.ContainsFunc(o.meet, o.at.same)
	at := slices.DeleteFunc(slices.Clone(o.meet), o.at.same)
	switch left := o.taken.Load(); {
	case left && mayWait:
		sleep(ctx, copyAfter)
	case !left && mayWait:
		at = slices.Insert(at, 0, o.at) // its control connection is there already
	case !left:
		at = append(at, o.at)
	}
	var errs []error
	for i, to := range at {
		if i > 0 && o.taken.Load() {
			sleep(ctx, copyAfter)
		}
		if ctx.Err() != nil || o.link.joined.Load() {
			break
		}
		if err := o.endpoint.putOfferSoon(ctx, to, o.peer, o.offer); err != nil {
			errs = append(errs, err)
			continue
		}
		o.taken.Store(true)
	}
	if o.taken.Load() {
		return nil
	}
	return errors.Join(errs...)
}

// putOfferSoon is putOfferFor within putPatience.
func (e *Endpoint) putOfferSoon(ctx context.Context, r Relay, peer PeerID, offer Offer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, putPatience, ErrRelayUnreachable)
	defer cancel()
	return e.putOfferFor(ctx, r, peer, offer)
}
