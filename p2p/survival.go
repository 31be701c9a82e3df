package p2p

import (
	"net/netip"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// directOnlyPatience is how long a connection that wants nothing but a direct path
// goes without.
const directOnlyPatience = 10 * time.Second

// follow takes note of where quic-go has gone after its client: a server's path is
// the client's to choose.
func (f *pathfinder) follow(now time.Time) {
	at := addrPortOf(f.conn.Conn.RemoteAddr())
	if dead := f.link.direct.dead.Load(); at == f.link.relay || dead != nil && at == *dead {
		at = netip.AddrPort{}
	}
	switch {
	case at == f.current:
	case at.IsValid():
		why := WhyPunched
		if f.direct() {
			why = WhyPeerMoved
		}
		f.measureDirect(baseSize, now)
		f.arrive(at, f.list.find(at), now, why)
	default:
		f.leave(WhyPeerMoved, now)
	}
}

// watch judges the direct path in use, and says when to look again.
func (f *pathfinder) watch(now time.Time) time.Time {
	if !f.direct() {
		// A server does not say when it follows its client.
		if f.link.role == control.Accepter && f.list.best() != nil {
			return now.Add(askEvery / 3)
		}
		return time.Time{}
	}
	a := &f.link.direct.activity
	switch {
	case f.link.direct.dead.Load() != nil:
		// Given up already; the client will follow.
	case f.vitals.dead(a, now):
		f.abandon(now)
		return now
	case f.vitals.suspect(a, now):
		f.ping(f.current, 0, now)
		f.vitals.ask(now)
	}
	return now.Add(f.vitals.period(a, now))
}

// abandon leaves a direct path that has died. A dialer goes back to the relay. An
// accepter cannot, but what quic-go sends goes there anyway, which tells the dialer.
func (f *pathfinder) abandon(now time.Time) {
	f.conn.counters.fallbacks.Add(1)
	f.shorten(now)
	dead := f.current
	f.link.size.grant(int(f.link.direct.size.granted.Load())) // an accepter's quic-go stays
	f.link.direct.dead.Store(&dead)
	if f.link.role == control.Dialer {
		f.retreat()
	}
	f.link.home.hasten(f.link)
	f.leave(WhyPathDied, now)
	f.again(now)
}

// retreat moves a dialer's connection back to the relay. The path that it leaves is
// kept until the relay has proved to work: the peer may still be there.
func (f *pathfinder) retreat() {
	f.left, f.using = f.using, nil
	if f.back == nil || f.back.Switch() != nil {
		f.back = nil // packets go by the relay all the same: see sendDirect
		return
	}
	f.conn.wake()
}

// forget closes the path that was left, when the relay has brought something since.
func (f *pathfinder) forget() {
	if f.left != nil && f.back != nil && f.link.activity.heardSince(f.since) {
		_ = f.left.path.Close()
		f.left = nil
	}
}

// rejoin goes back to the direct path that was left, which answers again while the
// relay does not. It needs no validation, and could not have one: the peer has never
// gone from there, and a server does not answer a probe from where its client is.
func (f *pathfinder) rejoin(now time.Time) {
	m := f.left
	if f.back != nil && m.path.Switch() != nil {
		return
	}
	f.left, f.using = nil, m
	f.directSize.resume(now)
	f.arrive(m.remote, f.list.find(m.remote), now, WhyPunched)
	f.conn.wake()
}

// leave takes note that the connection is on the relay again.
func (f *pathfinder) leave(why PathReason, now time.Time) {
	f.current, f.since = netip.AddrPort{}, now
	f.directSize.stop()
	f.change(why)
}

// prepare validates the way back, unless that is under way or done.
func (f *pathfinder) prepare() {
	f.retry = time.Time{}
	if f.preparing || f.back != nil {
		return
	}
	f.preparing = true
	f.conn.background.Go(func() {
		path, err := f.conn.prepareStandby()
		f.standby <- standby{path, err}
	})
}

// prepared takes note of how that has ended.
func (f *pathfinder) prepared(s standby) {
	f.preparing = false
	if s.err != nil {
		f.retry = time.Now().Add(standbyTimeout)
		return
	}
	f.back = s.path
	if f.left != nil && !f.direct() && f.back.Switch() == nil {
		f.conn.wake() // late, but there
	}
}

// renew prepares the way back again if that has failed.
func (f *pathfinder) renew(now time.Time) time.Time {
	if f.retry.IsZero() || f.retry.After(now) {
		return f.retry
	}
	f.retry = time.Time{}
	if f.direct() {
		f.prepare()
	}
	return time.Time{}
}

// shortestKeepAlive is what keepalives of a direct path come down to when NATs forget
// it.
const shortestKeepAlive = 5 * time.Second

// shorten makes keepalives more frequent if the path has died in silence: a NAT has
// forgotten it.
func (f *pathfinder) shorten(now time.Time) {
	k := f.conn.endpoint.conf.KeepAlive
	heard := time.Unix(0, f.link.direct.activity.heard.Load())
	if k > 0 && now.Sub(heard) >= shortestKeepAlive {
		now := time.Duration(f.conn.keepAlive.Load())
		f.conn.keepAlive.Store(int64(max(now/2, min(k, shortestKeepAlive))))
	}
}

// relayPatience is how long the relay has to bring something to a connection that
// has come back to it.
const relayPatience = time.Second

// relayProven is how long a relay that was lost must be back before a connection
// that prefers it returns.
const relayProven = 3 * time.Second

// replace looks for a direct path in place of a relay that is lost, if that would
// be preferred.
func (f *pathfinder) replace(now time.Time) {
	lost := f.conn.relayLost.Load()
	if lost && f.policy == PreferRelay && !f.direct() && !f.round.running {
		f.start(now)
	}
	if !lost {
		f.found = now
	}
}

// comeBack returns to a relay that is preferred and there again.
func (f *pathfinder) comeBack(now time.Time) time.Time {
	if f.policy != PreferRelay || f.using == nil || f.moving || f.conn.relayLost.Load() {
		return time.Time{}
	}
	if due := f.found.Add(relayProven); due.After(now) || f.back == nil {
		return now.Add(relayProven)
	}
	f.retreat()
	f.leave(WhyPolicy, now)
	return time.Time{}
}

// enforce ends a connection that should be direct, and is not.
func (f *pathfinder) enforce(now time.Time) time.Time {
	if f.conn.endpoint.conf.Policy != DirectOnly || f.direct() {
		return time.Time{}
	}
	since := f.since
	if since.IsZero() {
		since = f.conn.began
	}
	due := since.Add(directOnlyPatience)
	if !due.After(now) {
		_ = f.conn.CloseWithError(CodeNoDirectPath, ErrNoDirectPath.Error())
		return time.Time{}
	}
	return due
}
