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
	// allow lets a prefix in for so long: 0, no longer.
	allow(prefix netip.Prefix, ttl time.Duration)
	// deny drops what comes from a prefix for so long: 0, no longer.
	deny(prefix netip.Prefix, ttl time.Duration)
	// turnAway drops new attempts of a source for so long: 0, no longer. It
	// returns how many packets it has dropped since the last call.
	turnAway(source netip.Prefix, ttl time.Duration) (dropped uint64)
	// expect lets in Initials that carry our IDs from whom we have dialed.
	expect(peer netip.AddrPort, ttl time.Duration)
	// guard puts a port under the quota, of a server whose IDs have that
	// length, and unguard ends it. They come in pairs.
	guard(port uint16, idLen int)
	unguard(port uint16)
	// packets is how many packets have hit an entry, which nobody else has
	// seen if they were dropped.
	packets(list List, prefix netip.Prefix) uint64
	// dropped is how many packets were, by reason, and failed how often it
	// could not do what it was told.
	dropped() map[Reason]uint64
	failed() uint64
	// close ends all of it.
	close() error
}

// noEnforcer leaves it all to the packet filter.
type noEnforcer struct{}

var _ enforcer = noEnforcer{}

func (noEnforcer) allow(netip.Prefix, time.Duration)                     {}
func (noEnforcer) deny(netip.Prefix, time.Duration)                      {}
func (noEnforcer) turnAway(netip.Prefix, time.Duration) (dropped uint64) { return 0 }
func (noEnforcer) expect(netip.AddrPort, time.Duration)                  {}
func (noEnforcer) guard(uint16, int)                                     {}
func (noEnforcer) unguard(uint16)                                        {}
func (noEnforcer) packets(List, netip.Prefix) uint64                     { return 0 }
func (noEnforcer) dropped() map[Reason]uint64                            { return nil }
func (noEnforcer) failed() uint64                                        { return 0 }
func (noEnforcer) close() error                                          { return nil }

// turnAwayFor is how long a source is turned away after it has asked for more
// than it may have. After that one attempt gets through, and is asked again.
const turnAwayFor = instant(time.Second)

// turnedAwayLocked says whether a source that was refused is to be turned away from
// now on, and that is news. Only what has been refused counts, not a quota that is
// just used up: the rest of the last attempt that was let in is still to come.
func (c *Controller) turnedAwayLocked(s *source, why Reason, now instant) (news bool) {
	if s == nil || c.conf.DryRun || c.conf.Excess != Drop || why != Connections && why != ConnectionRate {
		return false
	}
	end := now + turnAwayFor
	if why == ConnectionRate {
		end = min(end, now+s.limits.connection.wait(s.connection, now))
	}
	if s.told-now > turnAwayFor/2 || end <= now {
		return false
	}
	s.told = end
	return true
}

// turnAway tells the enforcer until when the source of an address is turned away,
// as it is by then, and counts what that has cost it so far.
func (c *Controller) turnAway(addr netip.Addr) {
	c.enforcing.Lock()
	defer c.enforcing.Unlock()
	sh := c.shardOf(addr)
	now, ttl := c.now(), instant(0)
	sh.mu.Lock()
	if s := c.lookup(sh, addr, now); s != nil {
		ttl = max(s.told-now, 0)
	}
	sh.mu.Unlock()
	dropped := c.enforcer.turnAway(c.Source(addr), time.Duration(ttl))
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s := c.lookup(sh, addr, now); s != nil {
		s.dropped += dropped
	}
}

// liftLocked says whether a source that has been turned away may come again.
func (c *Controller) liftLocked(s *source) bool {
	if s == nil || s.told <= c.now() {
		return false
	}
	s.told = 0
	return true
}
