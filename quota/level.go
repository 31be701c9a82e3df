package quota

import "sync"

// stage is the progress of a connection. Connections of each stage have a pool of
// their own, so that attempts from forged addresses take no room from real ones.
type stage uint8

const (
	// stageUnvalidated: the address may be forged.
	stageUnvalidated stage = iota
	// stageRetried: the client sent the token of a Retry. The connection does not
	// count as live yet, since somebody else may send the same token again.
	stageRetried
	// stageLive: the handshake is complete, or the caller of [Controller.Admit]
	// has validated the address.
	stageLive

	numStages
)

// level holds what a source, a site, or all sources together use of their limits.
type level struct {
	limits *limits
	// count is the number of connections of each stage, and used what they have
	// used of the connection rate.
	count                    [numStages]int32
	used                     [numStages]bucket
	attempt, packet, request bucket
}

// reserved returns the number of connections that exist or that have a place kept
// for them.
func (l *level) reserved() int32 { return l.count[stageLive] + l.count[stageRetried] }

// all returns the number of connections of all stages.
func (l *level) all() int32 { return l.reserved() + l.count[stageUnvalidated] }

// halfOpen returns the number of attempts whose handshake is not complete.
func (l *level) halfOpen() int { return int(l.count[stageUnvalidated]) + int(l.count[stageRetried]) }

// full reports whether there is no room for another connection, and why.
func (l *level) full(now instant) (Reason, bool) {
	switch {
	case l.count[stageLive] >= l.limits.connections:
		return Connections, true
	case !l.limits.connection.ok(l.used[stageLive], now):
		return ConnectionRate, true
	}
	return PassNew, false
}

// poolFull reports whether there is no room for another attempt in the pool of a
// half-open stage.
func (l *level) poolFull(st stage, now instant) bool {
	taken := l.reserved()
	if st == stageUnvalidated {
		taken = l.all()
	}
	return l.count[st] >= l.limits.halfOpen ||
		taken >= l.limits.connections ||
		!l.limits.connection.ok(l.used[st], now)
}

// enter counts a connection.
func (l *level) enter(st stage, now instant) {
	l.count[st]++
	l.limits.connection.take(&l.used[st], now)
}

// leave is the reverse of enter. It does not give the token of the rate back.
func (l *level) leave(st stage) { l.count[st]-- }

// establish moves a half-open attempt to the live connections.
func (l *level) establish(st stage, now instant) {
	l.leave(st)
	l.enter(stageLive, now)
}

// mayEstablish reports whether there is room for a half-open attempt among the live
// connections. An attempt with a Retry token has a place kept for it.
func (l *level) mayEstablish(st stage) bool {
	if st == stageRetried {
		return l.count[stageLive] < l.limits.connections
	}
	return l.reserved() < l.limits.connections
}

// empty reports whether there are neither connections nor attempts.
func (l *level) empty() bool { return l.count == [numStages]int32{} }

// idle reports whether the level is empty and all its buckets are full.
func (l *level) idle(now instant) bool {
	return l.empty() &&
		max(l.used[stageUnvalidated], l.used[stageRetried], l.used[stageLive], l.attempt, l.packet, l.request) <= bucket(now)
}

// total is the level of all sources together.
type total struct {
	mu sync.Mutex // guards level except level.limits, and is locked after a shard's
	level
}

// full reports whether there is no room for another connection, and why.
func (t *total) full(now instant) (Reason, bool) {
	t.mu.Lock()
	why, full := t.level.full(now)
	t.mu.Unlock()
	switch {
	case !full:
		return PassNew, false
	case why == Connections:
		return TotalConnections, true
	}
	return TotalConnectionRate, true
}
