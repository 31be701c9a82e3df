package p2p

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/internal/monotime"
)

// activity remembers when packets were sent and received on a path, and how many are
// unanswered. It is used without a lock, by each packet. Times are those of package monotime.
type activity struct {
	// unanswered is the time of the first packet sent since the last one received, or 0.
	unanswered atomic.Int64
	// owed is the number of packets sent since then.
	owed atomic.Uint32
	// last is the time of the last packet in either direction, heard that of
	// the last one received. 0: there was none.
	last, heard atomic.Int64
}

// sent takes note of packets that are sent. It returns for how long packets have been unanswered.
func (a *activity) sent(packets int) (silence time.Duration) {
	now := monotime.Now()
	if since := a.unanswered.Load(); since != 0 {
		silence = time.Duration(now - since)
	} else {
		a.unanswered.CompareAndSwap(0, now)
	}
	a.owed.Add(uint32(packets))
	a.last.Store(now)
	return silence
}

func (a *activity) received() {
	now := monotime.Now()
	a.unanswered.Store(0)
	a.owed.Store(0)
	a.heard.Store(now)
	a.last.Store(now)
}

// silence is how long packets have been unanswered.
func (a *activity) silence(now time.Time) time.Duration {
	since := a.unanswered.Load()
	if since == 0 {
		return 0
	}
	return monotime.Age(since, now)
}

// overdue is silence, or 0 while only one packet is unanswered: that may be an
// acknowledgement, which has no answer. A sender that waits for an answer sends a second
// packet.
func (a *activity) overdue(now time.Time) time.Duration {
	if a.owed.Load() < 2 {
		return 0
	}
	return a.silence(now)
}

// heardSince says whether a packet has been received after t.
func (a *activity) heardSince(t time.Time) bool { return isSince(a.heard.Load(), t) }

// isSince says whether a time of package monotime is after t. 0 is before all times.
func isSince(at int64, t time.Time) bool { return at > monotime.Of(t) }

// idle is how long nothing has been sent or received.
func (a *activity) idle(now time.Time) time.Duration {
	last := a.last.Load()
	if last == 0 {
		return math.MaxInt64
	}
	return monotime.Age(last, now)
}

// forgive counts the packets sent so far as answered.
func (a *activity) forgive() {
	a.unanswered.Store(0)
	a.owed.Store(0)
}

// reset begins with another path.
func (a *activity) reset(now time.Time) {
	a.forgive()
	a.heard.Store(monotime.Of(now))
	a.last.Store(monotime.Of(now))
}
