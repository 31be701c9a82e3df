package p2p

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// How long a dialer waits before it leaves its offer again at a mailbox that had no room for it, or has
// lost it. The time doubles with each attempt.
const (
	minLeavePause = 250 * time.Millisecond
	maxLeavePause = 4 * time.Second
)

// offering is the offer of a dial on its way to the peer.
type offering struct {
	endpoint *Endpoint
	link     *link
	peer     PeerID
	offer    Offer
	at       Relay                 // where the peer is expected first
	meet     []Relay               // other mailboxes for copies, of meeting
	taken    atomic.Bool           // a mailbox has taken the offer
	noRoom   atomic.Pointer[error] // the last refusal of a mailbox that had no room
}

// leave leaves the offer in mailboxes, and returns nil when one has taken it. With a single relay it waits
// for room.
func (o *offering) leave(ctx context.Context) error {
	if o.meet != nil {
		return o.leaveAtMeeting(ctx)
	}
	for pause := minLeavePause; ; pause = longerPause(pause) {
		err := o.endpoint.putOffer(ctx, o.at, o.peer, o.offer)
		if !refusedAs(err, control.CodeLimit) || o.endpoint.list.hasSeveral() {
			return err
		}
		o.noRoom.Store(&err)
		sleepAbout(ctx, pause)
		if ctx.Err() != nil {
			return err
		}
	}
}

// keep leaves the offer again whenever a mailbox that had taken it may have lost it, until the peer
// has joined the session or ctx is done: the relay has been restarted, or others, who had left fewer
// offers, needed the room. A mailbox that still has the offer ignores that.
func (o *offering) keep(ctx context.Context) {
	for pause := minLeavePause; ; pause = longerPause(pause) {
		select {
		case <-ctx.Done():
			return
		case <-o.link.unoffered:
		}
		sleepAbout(ctx, pause)
		if ctx.Err() != nil || o.link.joined.Load() {
			return
		}
		if o.taken.Load() && o.endpoint.putOfferSoon(ctx, o.at, o.peer, o.offer) != nil {
			notify(o.link.unoffered)
		}
	}
}

func longerPause(pause time.Duration) time.Duration { return min(2*pause, maxLeavePause) }

// sleepAbout waits for a random time between half of d and d, or until ctx is done: many dialers may have
// come at the same time, and should not come again together.
func sleepAbout(ctx context.Context, d time.Duration) { sleep(ctx, d/2+rand.N(d/2)) }

// explain adds to the error of a dial what has become of the offer.
func (o *offering) explain(err error) error {
	refusal := o.noRoom.Load()
	switch {
	case errors.Is(err, ErrClosed) || o.link.joined.Load():
	case o.taken.Load():
		return fmt.Errorf("%w: %w", ErrPeerAbsent, err)
	case refusal != nil:
		return fmt.Errorf("deliver offer: %w: %w", *refusal, err)
	}
	return err
}
