package monitor

import (
	"slices"

	"github.com/quicway/quicway/internal/wire"
)

// absorb makes the paths, the connection IDs and the counters of a connection another one's, and
// removes it. All that led to it leads to the other one.
func (x *index) absorb(c, own *connection, now int64) {
	for side := range own.ids {
		for _, id := range own.ids[side].list {
			x.ids.forget(id, own)
			x.learnID(c, wire.Side(side), id, now)
		}
	}
	for _, p := range slices.Clone(own.paths) {
		for _, key := range p.sourceKeys() {
			x.sources.forget(key, own)
		}
		x.absorbPath(c, p, now)
	}
	own.paths = nil
	for side, n := range own.history.shorts {
		c.history.addShorts(wire.Side(side), n)
	}
	if d := own.departed; d != nil {
		left := c.left()
		for side := range left.traffic {
			left.traffic[side].add(d.traffic[side])
		}
		left.paths += d.paths
		left.changes += d.changes
	}
	c.rotations += own.rotations
	c.glued += own.glued
	c.last = max(c.last, own.last)
	c.open = c.open || own.open
	x.census.leave(own)
	x.connections.remove(own.number)
	x.wake(c)
	x.connections.touch(c.entry, now)
}

// absorbPath makes a path another connection's. If that has one between the same endpoints, the
// path's packets are added to it.
func (x *index) absorbPath(c *connection, p *path, now int64) {
	if have := c.pathBetween(p.key); have != nil {
		have.validated = have.validated || p.validated
		for side := range have.sent {
			to, from := &have.sent[side], &p.sent[side]
			to.packets += from.packets
			to.bytes += from.bytes
			to.ecn.add(from.ecn.get())
			to.last = max(to.last, from.last)
			to.id = from.id
		}
		f := &x.flows.peek(p.key).value
		f.paths = slices.DeleteFunc(f.paths, func(other *path) bool { return other == p })
		return
	}
	if len(c.paths) >= maxPaths {
		x.counters.PathOverflow++
		x.removePath(c.leastUseful())
	}
	p.conn = c
	c.paths = append(c.paths, p)
	for _, key := range p.sourceKeys() {
		x.sources.add(key, c, now)
	}
	if e := x.destinations.get(p.server(), now); e != nil {
		for side := range c.ids {
			if n := c.ids[side].length; n >= 0 {
				e.value.lengths[side] |= 1 << n
			}
		}
	}
}
