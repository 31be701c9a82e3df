package quota

import "net/netip"

// admission decides which attempts become connections, and counts both.
type admission struct {
	conf     *Config
	clock    clock
	lists    *lists
	sources  *sourceTable
	total    *total
	reporter *reporter
	counters *counters
}

// fullLocked reports whether a source can have no other connection, and why.
func (a *admission) fullLocked(s *source, now instant) (Reason, bool) {
	if s.exempt() {
		return PassNew, false
	}
	for l := range s.levels {
		if why, full := l.full(now); full {
			return why, true
		}
	}
	return a.total.full(now)
}

// poolFullLocked reports whether there is no room for another attempt of a source in
// the pool of a stage.
func (a *admission) poolFullLocked(s *source, st stage, now instant) bool {
	if st == stageLive || s.exempt() {
		return false
	}
	for l := range s.levels {
		if l.poolFull(st, now) {
			return true
		}
	}
	a.total.mu.Lock()
	defer a.total.mu.Unlock()
	return a.total.poolFull(st, now)
}

// wantsRetry implements [Controller.WantsRetry]. The address of remote is plain.
func (a *admission) wantsRetry(remote netip.AddrPort) bool {
	client := a.conf.client(remote)
	if a.lists.allows(client) || a.lists.denies(client) {
		return false
	}
	at, now := a.sources.place(client), a.clock.now()
	at.shard.mu.Lock()
	want := a.wantsRetryLocked(&at, remote, now)
	at.shard.mu.Unlock()
	if want {
		a.counters.retried.Add(1)
	}
	return want && !a.conf.DryRun
}

func (a *admission) wantsRetryLocked(at *place, remote netip.AddrPort, now instant) bool {
	s := a.sources.lookupLocked(at, now)
	if s.exempt() || at.shard.refusals.has(remote, now) {
		return false
	}
	if _, full := a.fullLocked(s, now); full {
		return false
	}
	if a.conf.AlwaysRetry || a.poolFullLocked(s, stageUnvalidated, now) {
		return true
	}
	for l := range s.levels {
		if l.all() >= l.limits.retryFrom {
			return true
		}
	}
	a.total.mu.Lock()
	defer a.total.mu.Unlock()
	return a.total.count[stageUnvalidated] >= a.total.limits.retryFrom
}

// admit makes a slot for a connection, or returns a RefusedError. The address of
// remote is plain. ofTransport says that a transport asks. It asks again for the
// second datagram of a ClientHello that was refused. Its Listener calls Slot.Established.
func (a *admission) admit(remote netip.AddrPort, st stage, ofTransport bool) (*Slot, error) {
	at, now := a.sources.place(a.conf.client(remote)), a.clock.now()
	at.shard.mu.Lock()
	s := a.sources.lookupLocked(&at, now)
	slot, why := a.admitLocked(&at, s, remote, st, ofTransport, now)
	var n note
	if why != PassNew {
		n = a.reporter.keptOutLocked(s, Refuse, why, now)
	}
	a.reporter.unlock(at.shard, n)
	a.counters.attempt(why)
	if slot == nil {
		return nil, &RefusedError{a.sources.of(at.addr), why}
	}
	if st != stageLive && !ofTransport {
		slot.establishAfter(a.conf.HandshakeTimeout)
	}
	return slot, nil
}

// admitLocked makes a slot if there is room, or if it is a dry run.
func (a *admission) admitLocked(at *place, s *source, remote netip.AddrPort, st stage, ofTransport bool, now instant) (*Slot, Reason) {
	allowed := a.lists.allows(at.addr)
	why := PassNew
	switch {
	case allowed:
	case a.lists.denies(at.addr):
		why = Denied
	case ofTransport && at.shard.refusals.has(remote, now):
		why = Repeated
	default:
		why = a.noRoomLocked(s, st, now)
	}
	if why != PassNew && !a.conf.DryRun {
		if ofTransport && why != Repeated {
			at.shard.refusals.put(remote, now)
		}
		return nil, why
	}
	slot := a.enterLocked(at, s, remote, st, now)
	slot.exempt = allowed || a.conf.DryRun || s.exempt()
	return slot, why
}

// noRoomLocked returns why there is no room for an attempt, or PassNew if there is.
// It counts only connections that exist and attempts that were admitted.
func (a *admission) noRoomLocked(s *source, st stage, now instant) Reason {
	if why, full := a.fullLocked(s, now); full {
		return why
	}
	if a.poolFullLocked(s, st, now) {
		return HalfOpen
	}
	return PassNew
}

// enterLocked makes a slot and counts it on all levels.
func (a *admission) enterLocked(at *place, s *source, remote netip.AddrPort, st stage, now instant) *Slot {
	slot := &Slot{admission: a, shard: at.shard, source: s, remote: remote, client: at.addr, stage: st}
	for l := range s.levels {
		l.enter(st, now)
	}
	a.total.mu.Lock()
	a.total.enter(st, now)
	a.total.mu.Unlock()
	if s != nil {
		s.admitted++
	}
	slot.linkLocked()
	return slot
}

// establishLocked makes the half-open attempt of a slot a live connection, if there
// is room for another. It charges the connection rate, which does not decide here.
func (a *admission) establishLocked(slot *Slot, now instant) bool {
	a.total.mu.Lock()
	defer a.total.mu.Unlock()
	if !slot.exempt && !a.mayEstablishLocked(slot.source, slot.stage) {
		a.counters.attempt(Connections)
		return false
	}
	for l := range slot.source.levels {
		l.establish(slot.stage, now)
	}
	a.total.establish(slot.stage, now)
	slot.stage = stageLive
	return true
}

func (a *admission) mayEstablishLocked(s *source, st stage) bool {
	for l := range s.levels {
		if !l.mayEstablish(st) {
			return false
		}
	}
	return a.total.mayEstablish(st)
}

// leaveLocked uncounts a slot on all levels.
func (a *admission) leaveLocked(slot *Slot) {
	for l := range slot.source.levels {
		l.leave(slot.stage)
	}
	a.total.mu.Lock()
	a.total.leave(slot.stage)
	a.total.mu.Unlock()
}
