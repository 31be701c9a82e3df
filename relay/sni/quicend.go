package sni

import (
	"errors"
	"time"

	"github.com/quicway/quicway/internal/monotime"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/quota"
)

var errNoAnswer = errors.New("no upstream has answered")

// ending is what is left to do when a flow has ended, without the lock.
type ending struct {
	member *udp.Member
	slot   *quota.Slot
	cancel func()
}

// finish may be called with nil.
func (e *ending) finish() {
	if e == nil {
		return
	}
	if e.member != nil {
		e.member.Close()
	}
	if e.slot != nil {
		e.slot.Release()
	}
	if e.cancel != nil {
		e.cancel()
	}
}

// finish finishes flows that had to make room.
func (q *quicRelay) finish(endings []*ending) {
	for _, e := range endings {
		e.finish()
	}
}

// endLocked ends a flow, whatever its shard. The shard forgets it after its next batch. why is counted for an
// attempt that the client has not confirmed. It returns nil if the flow has ended before.
func (q *quicRelay) endLocked(f *flow, why Failure) *ending {
	if f.ended.Load() {
		return nil
	}
	f.ended.Store(true)
	f.shard.gone = append(f.shard.gone, f.endpoints)
	f.shard.hasGone.Store(true)
	last := q.table.removeLocked(f)
	if f.to != nil {
		f.to.active.Add(-1)
		f.to = nil
	}
	if !f.confirmed.Load() && !f.moved {
		q.counters.failed[why].Add(1)
	}
	out := &ending{member: f.member.Load(), cancel: f.cancel}
	if !last {
		return out
	}
	c := f.conn
	c.ended = true
	out.slot = c.slot
	if c.counted {
		c.route.pool.active.Add(-1)
	}
	return out
}

// endConn ends all flows of a connection, because the quota says so.
func (q *quicRelay) endConn(c *quicConn) {
	q.table.mu.Lock()
	c.ended = true
	var endings []*ending
	for len(c.flows) > 0 {
		endings = append(endings, q.endLocked(c.flows[0], QuotaRefused))
	}
	q.table.mu.Unlock()
	q.finish(endings)
}

// fail ends an attempt that gets no upstream.
func (q *quicRelay) fail(f *flow, why Failure, err error) {
	q.end(f, why)
	f.attempt = nil
	q.logFailure(f, why, err)
}

// refuse counts an attempt that has no place.
func (q *quicRelay) refuse(f *flow, why Failure, err error) {
	q.counters.failed[why].Add(1)
	q.logFailure(f, why, err)
}

func (q *quicRelay) logFailure(f *flow, why Failure, err error) {
	q.server.log.Debug("refused QUIC", "client", f.client, "name", f.conn.hello.ServerName, "reason", why.String(), "err", err)
}

// add adds the flow of an attempt and its connection ID, unless the limits forbid it.
func (q *quicRelay) add(f *flow, id connID) (Failure, bool) {
	t := q.table
	t.mu.Lock()
	var endings []*ending
	why, full := t.fullLocked(f)
	if t.closed {
		why, full = ServerClosed, true
	}
	if !full {
		var ok bool
		if endings, ok = q.makeRoomLocked(f); ok {
			t.addLocked(f)
			t.learnLocked(f.conn, id, false, nil)
		} else {
			why, full = WaitingFull, true
		}
	}
	t.mu.Unlock()
	q.finish(endings)
	return why, !full
}

// makeRoomLocked ends flows until there is room for another one. It reports false if that would
// have to end a flow that makes no room for it; see flow.cheap.
func (q *quicRelay) makeRoomLocked(f *flow) (endings []*ending, ok bool) {
	for e := q.table.crowdedLocked(f); e != nil; e = q.table.crowdedLocked(f) {
		if f.cheap && (e.conn != f.conn || e.confirmed.Load()) {
			return endings, false
		}
		endings = append(endings, q.endLocked(e, WaitingFull))
	}
	return endings, true
}

// confirm counts a flow among those that are confirmed, if there is room, or says why not. If it
// is not proved the flow is presumed: it makes room for others, and its slot of the quota stays
// half open.
func (q *quicRelay) confirm(f *flow, proved bool) (Failure, bool) {
	t := q.table
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case f.ended.Load():
		return ServerClosed, false
	case f.confirmed.Load() && !(proved && f.presumed):
		return 0, true
	case f.confirmed.Load():
		t.countLocked(f, -1)
		f.presumed = false
		t.countLocked(f, 1)
		return q.establishLocked(f.conn)
	}
	if why, full := t.fullLocked(f); full {
		return why, false
	}
	for e := t.surplusLocked(f); e != nil; e = t.surplusLocked(f) {
		if f.cheap && f.moved && !e.moved {
			return ServerFull, false
		}
		q.counters.displaced.Add(1)
		q.endLocked(e, ServerFull).finish()
	}
	if why, ok := f.conn.countLocked(); !ok {
		return why, false
	}
	if proved {
		if why, ok := q.establishLocked(f.conn); !ok {
			return why, false
		}
	}
	t.confirmLocked(f, !proved)
	if !f.moved {
		q.counters.relayed.Add(1)
	}
	return 0, true
}

// countLocked counts a connection for its route, once.
func (c *quicConn) countLocked() (Failure, bool) {
	if c.counted {
		return 0, true
	}
	if n := c.route.pool.active.Add(1); c.route.MaxConnections > 0 && n > int64(c.route.MaxConnections) {
		c.route.pool.active.Add(-1)
		return RouteFull, false
	}
	c.counted = true
	return 0, true
}

// establishLocked tells the quota that the client's address is validated.
func (q *quicRelay) establishLocked(c *quicConn) (Failure, bool) {
	if c.slot != nil && !c.slot.Established() {
		return QuotaRefused, false
	}
	return 0, true
}

// sweep ends and forgets the flows of a shard that have expired.
func (sh *shard) sweep(now time.Time) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.now = monotime.Of(now)
	for _, p := range sh.peers {
		for _, f := range p.flows {
			sh.expire(f, now)
		}
	}
	sh.forget()
}

// expire ends a flow that has expired, or goes on with the next upstream of its attempt.
func (sh *shard) expire(f *flow, now time.Time) {
	q, conf := sh.relay, sh.relay.conf
	quiet := monotime.Age(f.active.Load(), now)
	switch {
	case f.ended.Load():
	case f.confirmed.Load():
		if quiet >= conf.QUICIdleTimeout {
			q.idle(f)
		}
	case f.moved:
		if quiet >= conf.QUICIdleTimeout {
			q.end(f, Unconfirmed)
		}
	case f.member.Load() == nil:
		if now.Sub(f.began) >= conf.HelloTimeout {
			q.fail(f, f.attempt.timeout(), errNoAnswer)
		}
	case !f.answered.Load() && len(f.attempt.tries)+len(f.attempt.rest) > 0:
		if now.Sub(f.asked) >= conf.DialTimeout {
			sh.retry(f, sh.silence(f))
		}
	case now.Sub(f.asked) >= conf.HelloTimeout:
		if !f.answered.Load() {
			if err := sh.silence(f); err != nil {
				q.upstreamFailed(f.conn.route, f.at.upstream, err)
			}
			q.fail(f, UpstreamFailed, errNoAnswer)
			return
		}
		q.fail(f, Unconfirmed, errNoAnswer)
	}
}

// silence returns an error if the upstream of an attempt has answered nobody since it was asked.
// Otherwise what the client has sent may be the reason.
func (sh *shard) silence(f *flow) error {
	if f.at.heardSince(f.asked) {
		return nil
	}
	return errNoAnswer
}

// timeout returns what an attempt without an upstream waits for.
func (a *attempt) timeout() Failure {
	if a != nil && a.decided {
		return UpstreamFailed
	}
	return HelloTimeout
}

// idle ends a confirmed flow without datagrams.
func (q *quicRelay) idle(f *flow) {
	q.counters.idle.Add(1)
	q.end(f, Unconfirmed)
	q.server.log.Debug("ended QUIC", "client", f.client, "name", f.conn.hello.ServerName, "route", f.conn.route.name(),
		"upstream", f.at.addr, "from_client", f.fromClient.Load(), "from_upstream", f.fromUpstream.Load(), "duration", time.Since(f.began))
}
