package p2p

import (
	"context"
	"time"
)

// Bounds of how often a mailbox is asked, independent of what the relay answers.
const (
	// offerEvery is the average time between two offers, and offerBurst the number of
	// offers that may come at once.
	offerEvery = 10 * time.Millisecond
	offerBurst = 256
	// minWait is how long a relay should wait before it answers that there is no offer.
	minWait = time.Second
	// An endpoint that has been displaced by another one with the same identity asks
	// again after firstDisplaced, then after twice as long each time, up to
	// lastDisplaced.
	firstDisplaced = 5 * time.Second
	lastDisplaced  = 5 * time.Minute
)

// pace says when the mailbox may be asked next. It is not safe for concurrent use.
type pace struct {
	next  time.Time     // when the mailbox may be asked next
	pause time.Duration // after answers without an offer that came too early
	spent time.Time     // when the rate of the offers so far equals offerEvery
	// displaced is when another endpoint last displaced this one, and displacedWait
	// how long this one waits after that.
	displaced     time.Time
	displacedWait time.Duration
}

// wait waits until the mailbox may be asked.
func (p *pace) wait(ctx context.Context) {
	if d := time.Until(p.next); d > 0 {
		sleep(ctx, d)
	}
}

// brought takes note of an answer with an offer.
func (p *pace) brought(now time.Time) {
	p.pause = 0
	if p.spent.Before(now) {
		p.spent = now
	}
	p.spent = p.spent.Add(offerEvery)
	p.next = p.spent.Add(-offerBurst * offerEvery)
}

// empty takes note of an answer without an offer, to a request of a time.
func (p *pace) empty(asked, now time.Time) {
	if now.Sub(asked) >= minWait {
		p.pause = 0
		return
	}
	p.pause = min(max(2*p.pause, minBackoff), maxBackoff)
	p.next = now.Add(p.pause)
}

// yield leaves the mailbox to another endpoint with the same identity.
func (p *pace) yield(now time.Time) {
	p.displacedWait = min(max(2*p.displacedWait, firstDisplaced), lastDisplaced)
	if now.Sub(p.displaced) > 4*lastDisplaced {
		p.displacedWait = firstDisplaced
	}
	p.displaced, p.next = now, now.Add(p.displacedWait)
}
