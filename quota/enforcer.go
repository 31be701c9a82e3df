package quota

import (
	"net/netip"
	"sync"
	"time"
)

// enforcer drops packets below the socket, as the controller has decided. Every
// decision has an end, so that everything is let in again when this process dies.
// Calls must not block.
type enforcer interface {
	// allow lets a prefix in for ttl. A ttl of 0 takes it off the allow list.
	allow(prefix netip.Prefix, ttl time.Duration)
	// deny drops the packets of a prefix for ttl. A ttl of 0 takes it off the deny
	// list.
	deny(prefix netip.Prefix, ttl time.Duration)
	// turnAway drops new attempts of a source for ttl. A ttl of 0 ends that. It
	// returns the number of packets that were dropped since the last call.
	turnAway(source netip.Prefix, ttl time.Duration) (dropped uint64)
	// expect lets in Initials of a peer that this process has dialed, which carry
	// connection IDs that this process has made.
	expect(peer netip.AddrPort, ttl time.Duration)
	// guard puts the port of a server under the quota. idLen is the length of the
	// server's connection IDs. Each call is paired with one of unguard.
	guard(port uint16, idLen int)
	unguard(port uint16)
	// packets returns the number of packets that matched an entry in the enforcer.
	// The packet filter does not see those that were dropped.
	packets(list List, prefix netip.Prefix) uint64
	// dropped returns the number of packets that were dropped, by reason.
	dropped() map[Reason]uint64
	// failed returns the number of calls that had no effect.
	failed() uint64
	// close stops all dropping.
	close() error
}

// noEnforcer does nothing: the packet filter alone drops.
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

// turnAwayFor is how long the enforcer drops the attempts of a source that has asked
// for more than its quota. After that, one attempt gets through and is decided anew.
const turnAwayFor = instant(time.Second)

// farFuture stands for a missing end where one is required.
const farFuture = 100 * 365 * 24 * time.Hour

// enforcement tells an enforcer what the controller has decided. It sends one update
// after the other. Each carries the state at the time of sending, so the last one is
// right whatever has changed meanwhile.
type enforcement struct {
	conf     *Config
	clock    clock
	lists    *lists
	sources  *sourceTable
	enforcer enforcer

	mu sync.Mutex // held during an update, and locked before a shard's
}

// updateEntry tells the enforcer about the entry of a list with a prefix: until when
// it holds, or that it is gone.
func (e *enforcement) updateEntry(list List, prefix netip.Prefix) {
	if e.conf.DryRun {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	ttl := time.Duration(0)
	if entry := e.lists.get(list, prefix); entry != nil {
		ttl = farFuture
		if !entry.Expires.IsZero() {
			ttl = min(entry.Expires.Sub(e.conf.Now()), farFuture)
		}
	}
	if list == AllowList {
		e.enforcer.allow(prefix, max(ttl, 0))
	} else {
		e.enforcer.deny(prefix, max(ttl, 0))
	}
}

// updateSource tells the enforcer until when to turn a source away, and counts what
// the enforcer has dropped of it so far.
func (e *enforcement) updateSource(sh *shard, k key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now, ttl := e.clock.now(), instant(0)
	sh.mu.Lock()
	if s := sh.get(k, false, now); s != nil {
		ttl = max(s.turnedAway-now, 0)
	}
	sh.mu.Unlock()
	dropped := e.enforcer.turnAway(e.sources.prefix(k), time.Duration(ttl))
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s := sh.get(k, false, now); s != nil {
		s.dropped += dropped
	}
}

// turnAwayLocked decides whether the enforcer drops the attempts of a source, of which
// one was refused for a reason. It reports whether updateSource has to be called. A
// source that has just used up its quota is not turned away before it asks for more:
// the rest of its last attempt is still to come.
func (e *enforcement) turnAwayLocked(s *source, why Reason, now instant) (changed bool) {
	if e.conf.DryRun || e.conf.Excess != Drop || why != Connections && why != ConnectionRate {
		return false
	}
	end := now + turnAwayFor
	if why == ConnectionRate {
		end = min(end, now+s.limits.connection.wait(s.used[stageLive], now))
	}
	if s.turnedAway-now > turnAwayFor/2 || end <= now {
		return false
	}
	s.turnedAway = end
	return true
}

// readmitLocked ends the turning away of a source, which may be nil. The caller passes
// the note to reporter.unlock.
func (e *enforcement) readmitLocked(s *source) note {
	if s == nil || s.turnedAway <= e.clock.now() {
		return note{}
	}
	s.turnedAway = 0
	return note{update: true, source: s.key}
}
