package quota

import "time"

// instant is a time in nanoseconds on a controller's clock.
type instant = int64

// clock converts between times and instants.
type clock struct {
	wall  func() time.Time
	start time.Time
}

func newClock(wall func() time.Time) clock { return clock{wall, wall()} }

// now returns the current instant. The first is one hour, at which every bucket is
// full.
func (c clock) now() instant { return instant(c.wall().Sub(c.start) + time.Hour) }

// time is the inverse of now.
func (c clock) time(t instant) time.Time { return c.start.Add(time.Duration(t) - time.Hour) }
