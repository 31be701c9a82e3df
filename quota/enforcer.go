package quota

import (
	"net/netip"
	"time"
)

// enforcer is told what has been decided, so that something below the socket can
// act on it. It is told nothing but facts with an end, and keeps none beyond it:
// if this process dies, everything is let in again when they expire. Calls must
// not block.
type enforcer interface {
	// allow lets a prefix in until then: the zero time, no longer.
	allow(prefix netip.Prefix, until time.Time)
	// deny drops what comes from a prefix until then: the zero time, no
	// longer.
	deny(prefix netip.Prefix, until time.Time)
	// turnAway drops new attempts of a source until then: the zero time, no
	// longer.
	turnAway(source netip.Prefix, until time.Time)
}

// noEnforcer leaves it all to the packet filter.
type noEnforcer struct{}

var _ enforcer = noEnforcer{}

func (noEnforcer) allow(netip.Prefix, time.Time)    {}
func (noEnforcer) deny(netip.Prefix, time.Time)     {}
func (noEnforcer) turnAway(netip.Prefix, time.Time) {}

// turnAwayFor is how long a source is turned away after it has asked for more
// than it may have. After that one attempt gets through, and is asked again.
const turnAwayFor = instant(time.Second)

// turnedAwayLocked says until when a source is to be turned away from now on,
// which was refused, if that is news. Only what has been refused counts, not a
// quota that is just used up: the rest of the last attempt that was let in is
// still to come.
func (c *Controller) turnedAwayLocked(s *source, why Reason, now instant) (until time.Time, news bool) {
	if s == nil || c.conf.DryRun || c.conf.Excess != Drop || why != Connections && why != ConnectionRate {
		return time.Time{}, false
	}
	end := now + turnAwayFor
	if why == ConnectionRate {
		end = min(end, now+s.limits.connection.wait(s.connection, now))
	}
	if s.told-now > turnAwayFor/2 || end <= now {
		return time.Time{}, false
	}
	s.told = end
	return c.time(end), true
}

// liftLocked says whether a source that has been turned away may come again.
func (c *Controller) liftLocked(s *source) bool {
	if s == nil || s.told <= c.now() {
		return false
	}
	s.told = 0
	return true
}
