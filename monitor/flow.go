package monitor

import (
	"slices"
	"time"
)

// flow is the traffic between two endpoints: one path for each connection there,
// mostly one.
type flow struct {
	paths []*path
	first [1]*path // the array of paths while there is only one
}

// reusedAfter is the silence after which a connection that shares its endpoints
// with others is taken to be over. A client that uses one socket for one
// connection after another does not show when each ends.
const reusedAfter = int64(10 * time.Second)

// leastUseful returns the path to remove when there are too many: that of the
// connection which has been silent for longest, if it is over, or else the one
// with the fewest packets. So forged Initials replace each other.
func (f *flow) leastUseful(now int64) *path {
	oldest, least := f.paths[0], f.paths[0]
	for _, p := range f.paths[1:] {
		if p.seen() < oldest.seen() {
			oldest = p
		}
		if p.packets() < least.packets() {
			least = p
		}
	}
	if now-oldest.seen() > reusedAfter {
		return oldest
	}
	return least
}

// choose returns the path that a short header belongs to.
func (f *flow) choose(a *arrival, slack int64) *path {
	if len(f.paths) == 1 {
		return f.paths[0]
	}
	if p := f.byID(a.fromA, a.payload[min(1, len(a.payload)):]); p != nil {
		return p
	}
	return f.likeliest(a.fromA, slack)
}

// byID returns the path of the connection that is known to have the ID at the
// beginning of b, or nil.
func (f *flow) byID(fromA bool, b []byte) *path {
	for _, p := range f.paths {
		if p.conn.confidence == GoogleQUIC {
			continue // anybody may have sent its version
		}
		ids := &p.conn.ids[1-p.side(fromA)]
		if n := int(ids.length); n > 0 && len(b) >= n && (ids.has(b[:n]) || ids.seenOnce.is(b[:n])) {
			return p
		}
	}
	return nil
}

// likeliest returns the path of the connection that a short header without an ID,
// or with an unknown one, most likely belongs to: one that has not had any since
// its handshake, after which endpoints may change their IDs at once, or else the
// one that was seen last.
func (f *flow) likeliest(fromA bool, slack int64) *path {
	best := f.paths[0]
	for _, p := range f.paths[1:] {
		if p.conn.confidence == GoogleQUIC {
			continue // as in byID
		}
		if best.conn.confidence == GoogleQUIC || p.conn.expectsShort() && p.likelier(best, fromA, slack) {
			best = p
		}
	}
	return best
}

// byLongHeader returns the path of the connection that has the IDs of a long
// header, or nil. It is not sure if the header may also be another connection's.
func (f *flow) byLongHeader(a *arrival) (likely *path, sure bool) {
	for _, p := range f.paths {
		switch p.matchLong(a) {
		case matches:
			return p, true
		case mayMatch:
			likely = p
		}
	}
	return likely, false
}

// busiest returns the path with the most packets.
func (f *flow) busiest() *path {
	best := f.paths[0]
	for _, p := range f.paths[1:] {
		if p.packets() > best.packets() {
			best = p
		}
	}
	return best
}

// orBusiest returns p if it is still there, or else the busiest path.
func (f *flow) orBusiest(p *path) *path {
	if slices.Contains(f.paths, p) {
		return p
	}
	return f.busiest()
}
