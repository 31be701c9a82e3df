package monitor

import "slices"

// expire removes what was last seen before a time, and stops reading handshakes
// that were last seen before another.
func (x *index) expire(before, handshakesBefore int64) {
	x.handshakes.expire(handshakesBefore)
	x.connections.expire(before)
	x.flows.expire(before)
	x.destinations.expire(before)
	x.sources.expire(before)
	x.potential.expire(before)
}

// removePath removes a path from its connection and from its flow.
func (x *index) removePath(p *path) {
	x.leaveConnection(p)
	e := x.flows.peek(p.key)
	if e == nil {
		return
	}
	f := &e.value
	if i := slices.Index(f.paths, p); i >= 0 {
		f.paths = slices.Delete(f.paths, i, i+1)
	}
	if len(f.paths) == 0 {
		x.flows.remove(p.key)
		x.hooks.flowGone(p.key)
	} else {
		x.hooks.flowChanged(p.key)
	}
}

// leaveConnection removes a path from its connection, and the sources that lead
// from its endpoints to the connection unless another path has the same.
func (x *index) leaveConnection(p *path) {
	c := p.conn
	i := slices.Index(c.paths, p)
	if i < 0 {
		return
	}
	c.paths = slices.Delete(c.paths, i, i+1)
	left := c.left()
	left.paths++
	for side := range left.traffic {
		left.traffic[side].add(p.sent[side].traffic())
	}
	if c.active == p && len(c.paths) > 0 {
		c.active = c.paths[0]
	}
	for _, key := range p.sourceKeys() {
		if !slices.ContainsFunc(c.paths, func(other *path) bool {
			keys := other.sourceKeys()
			return slices.Contains(keys[:], key)
		}) {
			x.sources.forget(key, c)
		}
	}
	x.census.update(c) // the client's packets may have gone with the path
}

// evictPath removes a path to make room. If it is the connection's last one it
// removes the connection.
func (x *index) evictPath(p *path) {
	if len(p.conn.paths) > 1 {
		x.removePath(p)
		return
	}
	x.connections.evicted++
	x.connections.drop(p.conn.entry, Evicted)
}

// flowDropped removes the paths of a flow that its table has dropped.
func (x *index) flowDropped(key tuple, f *flow, why Reason) {
	defer x.hooks.flowGone(key)
	for _, p := range slices.Clone(f.paths) {
		c := p.conn
		switch {
		case len(c.paths) > 1:
			x.leaveConnection(p)
		case x.connections.peek(c.number) != nil:
			x.connections.drop(c.entry, why)
		}
	}
}

// closed removes all that leads to a connection that its table has dropped.
func (x *index) closed(c *connection, why Reason) {
	x.endHandshake(c)
	x.hooks.closing(c, why)
	x.census.leave(c)
	for side := range c.ids {
		for _, id := range c.ids[side].list {
			x.ids.forget(id, c)
		}
	}
	for _, id := range c.origIDs {
		x.ids.forget(id, c)
	}
	for _, p := range slices.Clone(c.paths) {
		x.removePath(p)
	}
}
