package p2p

import (
	"slices"
	"sync"

	"github.com/quicway/quicway/internal/control"
)

// Bounds of the offers from mailboxes that are being answered, or wait for that.
const (
	maxAnswering       = 64 // being answered at the same time
	maxAnsweringSender = 8  // those of one sender, as far as the relay can tell senders apart
	maxWaiting         = 64 // that wait
	maxWaitingSender   = 16 // those of one sender
)

// answering decides when the offers from mailboxes are answered. Those for which there is no place
// now wait, and take the next place that is free and that their sender may have, in their order.
type answering struct {
	mu      sync.Mutex // guards the following
	running int
	senders map[string]int // of running, those of each sender
	waiting []waitingOffer
}

// waitingOffer is an offer that is to be answered.
type waitingOffer struct {
	sender  string // empty: the relay has not said
	session control.SessionID
	begin   func() // begins to answer it, and does not block
}

// add begins to answer an offer, or has it wait. It returns false if too many wait, or too many of
// the sender. The caller calls end when the answer has ended.
func (a *answering) add(o waitingOffer) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.hasPlaceLocked(o.sender) {
		a.beginLocked(o)
		return true
	}
	of := 0
	for _, w := range a.waiting {
		if w.session == o.session { // the relay has shown it again
			return true
		}
		if w.sender == o.sender {
			of++
		}
	}
	if len(a.waiting) == maxWaiting || o.sender != "" && of == maxWaitingSender {
		return false
	}
	a.waiting = append(a.waiting, o)
	return true
}

// end frees the place of an offer, for the next one.
func (a *answering) end(sender string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running--
	if a.senders[sender]--; a.senders[sender] == 0 {
		delete(a.senders, sender)
	}
	next := slices.IndexFunc(a.waiting, func(w waitingOffer) bool { return a.hasPlaceLocked(w.sender) })
	if next < 0 {
		return
	}
	o := a.waiting[next]
	a.waiting = slices.Delete(a.waiting, next, next+1)
	a.beginLocked(o)
}

// hasPlaceLocked says whether an offer of a sender may be answered now.
func (a *answering) hasPlaceLocked(sender string) bool {
	return a.running < maxAnswering && (sender == "" || a.senders[sender] < maxAnsweringSender)
}

func (a *answering) beginLocked(o waitingOffer) {
	a.running++
	a.senders[o.sender]++
	o.begin()
}

// count returns how many offers are being answered.
func (a *answering) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.running
}
