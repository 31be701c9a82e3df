package sni

import (
	"slices"

	"github.com/quicway/quicway/internal/monotime"
)

// newMoved returns the flow of a connection that has come from another address.
func (sh *shard) newMoved(at endpoints, c *quicConn) *flow {
	f := &flow{shard: sh, endpoints: at, conn: c, moved: true, began: monotime.Time(sh.now), first: none, final: none}
	f.answered.Store(true)
	return f
}

// move opens a flow that is new. The upstream sees another address as well, and validates the
// path (RFC 9000 §9). The flow of the old address stays as it is.
func (sh *shard) move(f *flow, r *run, e evidence) {
	q := sh.relay
	to, ok := upstreamAddr{}, sh.hasRoom(sh.peers[f.endpoints], f.cheap)
	if ok {
		to, ok = q.addMoved(f)
	}
	if !ok {
		q.releaseUnused(f.conn)
		sh.drop(r, DropFull)
		return
	}
	if _, err := sh.connect(f, to); err != nil {
		q.end(f, UpstreamFailed)
		sh.drop(r, DropFull)
		return
	}
	q.counters.moved.Add(1)
	f.active.Store(sh.now)
	sh.join(f)
	sh.pass(f, r, e)
}

// moveUnknown is like move for a connection that is one of several of its source, which all go
// to the upstream of a connection c.
func (sh *shard) moveUnknown(at endpoints, c *quicConn, r *run) {
	q := sh.relay
	own := &quicConn{began: monotime.Time(sh.now), fresh: true, answered: true}
	own.idLen.Store(c.idLen.Load())
	q.table.mu.Lock()
	own.hello, own.route, own.at = c.hello, c.route, c.at
	q.table.mu.Unlock()
	own.hello.Client = at.client
	if q.conf.Quota != nil {
		slot, err := q.conf.Quota.Admit(at.client, false)
		if err != nil {
			sh.drop(r, DropFull)
			return
		}
		own.slot = slot
		slot.OnEnd(func() { q.endConn(own) })
	}
	f := sh.newMoved(at, own)
	f.cheap = true
	sh.move(f, r, strange)
}

// releaseUnused gives the quota the slot of a connection that has no flow.
func (q *quicRelay) releaseUnused(c *quicConn) {
	q.table.mu.Lock()
	slot, used := c.slot, len(c.flows) > 0
	q.table.mu.Unlock()
	if slot != nil && !used {
		slot.Release()
	}
}

// addMoved adds the flow of a connection that has moved. It reports false if the connection has
// ended meanwhile, or there is no room.
func (q *quicRelay) addMoved(f *flow) (to upstreamAddr, ok bool) {
	t, c := q.table, f.conn
	t.mu.Lock()
	known := c.fresh || slices.ContainsFunc(c.flows, func(other *flow) bool {
		return other.confirmed.Load() && other.client.Addr() == f.client.Addr()
	})
	var endings []*ending
	if ok = !t.closed && !c.ended; ok {
		endings, ok = q.makeRoomLocked(f)
	}
	if ok = ok && !c.ended; ok { // its own last flow may have made room
		if known {
			f.sameHost = true
			f.credit.Store(probeCredit)
		}
		t.addLocked(f)
		to = c.at
	}
	t.mu.Unlock()
	q.finish(endings)
	return to, ok
}
