package p2p

import (
	"sync/atomic"
	"time"
)

// Sizes of packets, in bytes of UDP payload.
const (
	// baseSize is what a path must carry to be one (RFC 9000 §14).
	baseSize = packetSize
	// fullSize is the largest packet that quic-go sends.
	fullSize = 1452
	// sizeStep is how exactly the largest size is found.
	sizeStep = 16
)

// Timing of the search for the size of a path.
const (
	// sizePatience is how long an answer to a large probe may take, more if the
	// path is long.
	sizePatience = 200 * time.Millisecond
	// sizeTries is how many probes of one size must be without answer.
	sizeTries = 2
	// confirmEvery is how often a path that large packets take is asked whether
	// it still carries them.
	confirmEvery = time.Second
	// Larger packets are tried again after firstRaise, then after twice as long
	// each time, up to lastRaise.
	firstRaise = 5 * time.Second
	lastRaise  = 2 * time.Minute
)

// maxRefused is how many packets quic-go may lose while it looks for the size of a
// path. It sends fewer such packets, so that further ones are data.
const maxRefused = 16

// pathSize is what is known of the packets that a path carries, for those who send
// them. quic-go lets its packets grow and never shrink, and does not notice when a
// path carries no large ones any more. So packets are told from each other here: up to
// limit they are sent as they are, up to granted in pieces, and what is larger is
// quic-go's own search, which is to learn that it doesn't get through.
type pathSize struct {
	limit   atomic.Int32 // what the path carries for certain
	granted atomic.Int32 // what quic-go may have got used to
	refused atomic.Int32 // packets beyond that
	large   atomic.Bool  // packets of more than baseSize have been sent since it was read
	tooLong atomic.Bool  // the system has refused one that should have passed
}

// restart forgets what is known, for another path. granted is what quic-go begins
// with there.
func (s *pathSize) restart(limit, granted int) {
	s.refused.Store(0)
	s.granted.Store(int32(max(limit, granted)))
	s.limit.Store(int32(limit))
}

// set says what the path carries.
func (s *pathSize) set(limit int) {
	s.grant(limit)
	s.limit.Store(int32(limit))
}

// grant says that quic-go may send packets of a size.
func (s *pathSize) grant(size int) {
	for {
		old := s.granted.Load()
		if int32(size) <= old || s.granted.CompareAndSwap(old, int32(size)) {
			return
		}
	}
}

// carries says whether packets of a size pass as they are.
func (s *pathSize) carries(size int) bool { return size <= int(s.limit.Load()) }

// refuses says whether a packet that the path does not carry is one of quic-go's
// search, and counts it.
func (s *pathSize) refuses(size int) bool {
	if size <= int(s.granted.Load()) {
		return false
	}
	if s.refused.Add(1) <= maxRefused {
		return true
	}
	s.grant(size) // it is no search
	return false
}

// note says that a packet of a size is sent. It returns true if that is news.
func (s *pathSize) note(size int) bool {
	return size > baseSize && !s.large.Load() && !s.large.Swap(true)
}

// sizer finds out what a path carries, in one direction, by probes of that size
// (RFC 8899). It sends nothing itself.
type sizer struct {
	size      *pathSize
	active    bool
	low       int // what passes
	high      int // what does not; more than fullSize: everything may
	asking    int // the size of the probes under way, or 0
	tries     int
	due       time.Time     // when the next probe is; zero: when there are large packets
	confirm   time.Time     // when low is to be asked about again
	raise     time.Time     // when larger packets are to be tried again; zero: never
	pause     time.Duration // until then
	questions [4]sizeQuestion
}

// sizeQuestion is a probe of a size.
type sizeQuestion struct {
	sequence uint64
	size     int
}

// restart begins anew, for a path of which known is known to pass.
func (z *sizer) restart(known int, now time.Time) {
	*z = sizer{size: z.size, active: true, low: known, high: fullSize + 1, due: now, confirm: now.Add(confirmEvery)}
}

// stop ends the search: the path is not in use.
func (z *sizer) stop() { z.active = false }

// resume goes on with a path that was not in use for a while, and may not carry what
// it has carried.
func (z *sizer) resume(now time.Time) {
	if z.active {
		return
	}
	z.active, z.asking, z.due, z.confirm = true, 0, now, now
	z.size.large.Store(true)
}

// searching says whether the size is still to be found.
func (z *sizer) searching() bool { return z.low < fullSize && z.high-z.low > sizeStep }

// next returns the size of the probe that is to be sent now, or 0, and when to ask
// again. rtt is the path's; silent says that the path owes answers.
func (z *sizer) next(now time.Time, rtt time.Duration, silent bool) (int, time.Time) {
	if !z.active {
		return 0, time.Time{}
	}
	if z.size.tooLong.Swap(false) && z.low > baseSize {
		z.shrink(z.low, now)
	}
	if silent && z.asking == 0 && z.confirm.After(now) {
		z.confirm, z.due = now, now
	}
	if z.due.After(now) {
		return 0, z.due
	}
	if z.tries >= sizeTries {
		z.fail(z.asking, now)
	}
	if z.asking == 0 && !z.choose(now) {
		return 0, z.due
	}
	if z.tries++; z.tries > 1 && z.asking <= z.low {
		z.size.limit.Store(baseSize) // in pieces, until it is known
	}
	z.due = now.Add(max(sizePatience, 2*rtt+sizePatience/2))
	return z.asking, z.due
}

// choose decides what to ask for, or when to do so.
func (z *sizer) choose(now time.Time) bool {
	z.asking, z.tries = 0, 0
	switch {
	case z.searching() && z.high > fullSize:
		z.asking = fullSize
	case z.searching():
		z.asking = (z.low + z.high) / 2
	case !z.size.large.Load():
		z.due = time.Time{}
	case z.low > baseSize && !z.confirm.After(now):
		z.asking = z.low
		z.size.large.Store(false)
	case !z.raise.IsZero() && !z.raise.After(now):
		z.asking, z.high, z.raise = fullSize, fullSize+1, time.Time{}
		z.size.large.Store(false)
	default:
		z.due = z.confirm
		if z.low == baseSize || !z.raise.IsZero() && z.raise.Before(z.due) {
			z.due = z.raise
		}
	}
	return z.asking != 0
}

// asked takes note of the probe that has been sent.
func (z *sizer) asked(sequence uint64) {
	copy(z.questions[1:], z.questions[:])
	z.questions[0] = sizeQuestion{sequence, z.asking}
}

// answer takes a pong, if it is for a probe of ours.
func (z *sizer) answer(sequence uint64, now time.Time) {
	if !z.active {
		return
	}
	for _, q := range z.questions {
		if q.sequence == sequence && q.size > 0 {
			z.passed(q.size, now)
		}
	}
}

// passed takes note that a size passes.
func (z *sizer) passed(size int, now time.Time) {
	if size >= z.low {
		z.low = size
		z.size.set(size)
	}
	if z.high <= z.low {
		z.high = fullSize + 1
	}
	if z.asking > 0 && z.asking <= size {
		z.settle(now)
	}
}

// fail takes note that a size does not pass.
func (z *sizer) fail(size int, now time.Time) {
	if size <= z.low {
		z.shrink(size, now)
		return
	}
	z.high = size
	z.settle(now)
}

// settle goes on after an answer, or the lack of one.
func (z *sizer) settle(now time.Time) {
	z.asking, z.tries, z.due, z.confirm = 0, 0, now, now.Add(confirmEvery)
	if !z.searching() && z.low < fullSize && z.raise.IsZero() {
		z.pause = min(max(2*z.pause, firstRaise), lastRaise)
		z.raise = now.Add(z.pause)
	}
}

// shrink begins the search again from the bottom.
func (z *sizer) shrink(size int, now time.Time) {
	z.low, z.high, z.asking, z.tries, z.due = baseSize, size, 0, 0, now
	z.raise, z.pause = time.Time{}, 0
	z.size.limit.Store(baseSize)
}
