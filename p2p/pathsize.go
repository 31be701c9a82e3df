package p2p

import (
	"sync/atomic"
	"time"
)

// Sizes of packets, in bytes of UDP payload.
const (
	// baseSize is the size that every path must carry (RFC 9000 §14).
	baseSize = packetSize
	// fullSize is the largest packet that quic-go sends.
	fullSize = 1452
	// sizeStep is the precision with which the largest size is found.
	sizeStep = 16
)

// Timing of the search for the size of a path.
const (
	// sizePatience is how long the answer to a large probe may take, more if the
	// round-trip time is long.
	sizePatience = 200 * time.Millisecond
	// sizeTries is how many probes of one size must be unanswered.
	sizeTries = 2
	// confirmEvery is the period in which the size of a path with large packets is
	// confirmed.
	confirmEvery = time.Second
	// Larger packets are tried again after firstRaise, then after twice as long
	// each time, up to lastRaise.
	firstRaise = 5 * time.Second
	lastRaise  = 2 * time.Minute
)

// maxRefused is how many packets of quic-go's own search for the path's size are dropped.
// quic-go's search needs fewer packets, so that further ones are data.
const maxRefused = 16

// pathSize holds which packets a path carries, for those who send them. quic-go increases
// the size of its packets and never decreases it, and does not notice when a path stops
// carrying large ones. So packets are sent by size: up to limit as they are, up to granted
// in two pieces. Larger ones belong to quic-go's own search for the size, and are dropped,
// so that quic-go learns that the path does not carry them.
type pathSize struct {
	limit   atomic.Int32 // the largest size that is known to pass
	granted atomic.Int32 // the largest size that quic-go may use for data
	refused atomic.Int32 // the number of larger packets
	large   atomic.Bool  // packets of more than baseSize have been sent since it was cleared
	tooLong atomic.Bool  // the system has refused a packet of at most limit (EMSGSIZE)
}

// restart begins with another path. granted is the size with which quic-go begins there.
func (s *pathSize) restart(limit, granted int) {
	s.refused.Store(0)
	s.granted.Store(int32(max(limit, granted)))
	s.limit.Store(int32(limit))
}

// set sets the size that the path carries.
func (s *pathSize) set(limit int) {
	s.grant(limit)
	s.limit.Store(int32(limit))
}

// grant says that quic-go may send data in packets of a size.
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
	s.grant(size) // more than quic-go sends to try a size: these are data
	return false
}

// note says that a packet of a size is sent. It returns true for the first large one
// since large was cleared.
func (s *pathSize) note(size int) bool {
	return size > baseSize && !s.large.Load() && !s.large.Swap(true)
}

// sizer finds the largest packets that a path carries in one direction, with probes of
// several sizes (RFC 8899). It sends nothing itself.
type sizer struct {
	size    *pathSize
	active  bool // the path is in use
	low     int  // the largest size known to pass
	high    int  // the smallest size known not to pass; more than fullSize: none
	asking  int  // the size of the probes under way, or 0
	tries   int
	due     time.Time     // when the next probe is due; zero: after the next large packet
	confirm time.Time     // when low is to be confirmed
	raise   time.Time     // when larger sizes are to be tried again; zero: never
	pause   time.Duration // before raise
	probes  [4]sizeProbe  // the latest ones
}

// sizeProbe is a probe of a size.
type sizeProbe struct {
	sequence uint64
	size     int
}

// restart begins with another path, on which packets of size known pass.
func (z *sizer) restart(known int, now time.Time) {
	*z = sizer{size: z.size, active: true, low: known, high: fullSize + 1, due: now, confirm: now.Add(confirmEvery)}
}

// stop pauses the search, because the path is not in use.
func (z *sizer) stop() { z.active = false }

// resume continues with a path that was not in use for a while. It is measured again,
// because it may carry less than before.
func (z *sizer) resume(now time.Time) {
	if z.active {
		return
	}
	z.active, z.asking, z.due, z.confirm = true, 0, now, now
	z.size.large.Store(true)
}

// recheck measures the path again, because packets take another way.
func (z *sizer) recheck(now time.Time) {
	if z.active {
		z.asking, z.tries, z.due, z.confirm = 0, 0, now, now
		z.size.large.Store(true)
	}
}

// searching says whether the largest size has not been found yet.
func (z *sizer) searching() bool { return z.low < fullSize && z.high-z.low > sizeStep }

// next returns the size of the probe to send now, or 0, and when to call next again. rtt
// is the path's round-trip time. silent says that packets on the path are unanswered.
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
		z.size.limit.Store(baseSize) // larger packets go in pieces until the size is known
	}
	z.due = now.Add(max(sizePatience, 2*rtt+sizePatience/2))
	return z.asking, z.due
}

// choose chooses the size of the next probe, or else sets due. It returns false if no
// probe is to be sent now.
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
	copy(z.probes[1:], z.probes[:])
	z.probes[0] = sizeProbe{sequence, z.asking}
}

// answer takes the answer to a probe, by the probe's sequence number. It ignores probes
// of others.
func (z *sizer) answer(sequence uint64, now time.Time) {
	if !z.active {
		return
	}
	for _, p := range z.probes {
		if p.sequence == sequence && p.size > 0 {
			z.passed(p.size, now)
		}
	}
}

// passed takes note that packets of a size pass.
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

// fail takes note that packets of a size do not pass.
func (z *sizer) fail(size int, now time.Time) {
	if size <= z.low {
		z.shrink(size, now)
		return
	}
	z.high = size
	z.settle(now)
}

// settle continues after a size has passed or failed.
func (z *sizer) settle(now time.Time) {
	z.asking, z.tries, z.due, z.confirm = 0, 0, now, now.Add(confirmEvery)
	if !z.searching() && z.low < fullSize && z.raise.IsZero() {
		z.pause = min(max(2*z.pause, firstRaise), lastRaise)
		z.raise = now.Add(z.pause)
	}
}

// shrink begins the search again, with baseSize.
func (z *sizer) shrink(size int, now time.Time) {
	z.low, z.high, z.asking, z.tries, z.due = baseSize, size, 0, 0, now
	z.raise, z.pause = time.Time{}, 0
	z.size.limit.Store(baseSize)
}
