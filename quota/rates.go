package quota

import "net/netip"

// rates charges attempts, packets and requests to the rates of sources, sites, and
// all sources together.
type rates struct {
	clock         clock
	lists         *lists
	sources       *sourceTable
	total         *total
	reporter      *reporter
	limitsPackets bool // there is a packet rate of a source or a site
	perConnection rate // of requests

	attempts, packets sharedBucket // of all sources
}

// takeAttemptLocked charges an attempt to all levels if every level has room for it.
func (r *rates) takeAttemptLocked(s *source, now instant) bool {
	for l := range s.levels {
		if !l.limits.attempt.ok(l.attempt, now) {
			return false
		}
	}
	if !r.attempts.take(r.total.limits.attempt, now) {
		return false
	}
	for l := range s.levels {
		l.limits.attempt.take(&l.attempt, now)
	}
	return true
}

// takePacket charges a packet. It locks a shard only if a source or a site has a
// packet rate.
func (r *rates) takePacket(addr netip.Addr, now instant) bool {
	all := r.total.limits.packet
	if !r.limitsPackets && !all.limited() {
		return true
	}
	if l, ok := r.sources.overrides.Lookup(addr); ok && l.exempt {
		return true
	}
	if r.limitsPackets && !r.takeSourcePacket(addr, now) {
		return false
	}
	return r.packets.take(all, now)
}

// takeSourcePacket charges a packet to its source and site.
func (r *rates) takeSourcePacket(addr netip.Addr, now instant) bool {
	at := r.sources.place(addr)
	at.shard.mu.Lock()
	s := r.sources.lookupLocked(&at, now)
	for l := range s.levels {
		if !l.limits.packet.ok(l.packet, now) {
			r.reporter.unlock(at.shard, r.reporter.keptOutLocked(s, Drop, PacketRate, now))
			return false
		}
	}
	for l := range s.levels {
		l.limits.packet.take(&l.packet, now)
	}
	at.shard.mu.Unlock()
	return true
}

// takeRequest charges a request to all levels, and to the bucket of its connection unless
// that is nil, if there is room everywhere. It returns how long to wait if there is not.
func (r *rates) takeRequest(client netip.Addr, connection *bucket) (wait instant) {
	if r.lists.allows(client) {
		return 0
	}
	at, now := r.sources.place(client), r.clock.now()
	at.shard.mu.Lock()
	defer at.shard.mu.Unlock()
	s := r.sources.lookupLocked(&at, now)
	if wait = r.requestWaitLocked(s, connection, now); wait > 0 {
		return wait
	}
	r.chargeRequestLocked(s, connection, now)
	return 0
}

// requestWaitLocked returns how long to wait until a request may be made.
func (r *rates) requestWaitLocked(s *source, connection *bucket, now instant) (wait instant) {
	if s.exempt() {
		return 0
	}
	if connection != nil {
		wait = r.perConnection.wait(*connection, now)
	}
	for l := range s.levels {
		wait = max(wait, l.limits.request.wait(l.request, now))
	}
	r.total.mu.Lock()
	defer r.total.mu.Unlock()
	return max(wait, r.total.limits.request.wait(r.total.request, now))
}

func (r *rates) chargeRequestLocked(s *source, connection *bucket, now instant) {
	if connection != nil {
		r.perConnection.take(connection, now)
	}
	for l := range s.levels {
		l.limits.request.take(&l.request, now)
	}
	r.total.mu.Lock()
	defer r.total.mu.Unlock()
	r.total.limits.request.take(&r.total.request, now)
}
