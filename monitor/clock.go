package monitor

import "time"

// sweepEvery is the time between two sweeps of the tables, by the packets' clock.
const sweepEvery = int64(time.Second)

// maxBackwards is the largest step back that is put down to packets of several
// interfaces being out of order. After a larger one the clock was set, or the
// packets before it had a wrong time.
const maxBackwards = int64(time.Minute)

// clock is the packets' clock, in nanoseconds since 1970. 0 stands for no time.
type clock struct {
	now   int64 // the time of the latest packet
	swept int64 // the time of the latest sweep
}

// packet sets the clock to the time of a packet. Small steps back are ignored. A
// packet without a time has that of the packet before it.
func (c *clock) packet(at time.Time) {
	if at.IsZero() {
		c.now = max(c.now, 1)
		return
	}
	now := max(at.UnixNano(), 1)
	if now < c.now && c.now-now <= maxBackwards {
		return
	}
	if now < c.swept {
		c.swept = now
	}
	c.now = now
}

// sweepDue reports whether a sweep is due at a time.
func (c *clock) sweepDue(now int64) bool { return now-c.swept >= sweepEvery }
