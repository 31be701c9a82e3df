package p2p

import (
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/udp"
)

const (
	// directOnlyPatience is how long a DirectOnly connection may stay without a direct
	// path.
	directOnlyPatience = 10 * time.Second
	// relayPatience is how long the relay has to deliver something to a connection
	// that has come back to it.
	relayPatience = time.Second
	// shortestKeepAlive is the lower limit of the keepalive period of a direct path
	// that NATs forget.
	shortestKeepAlive = 5 * time.Second
)

// carrier is what carries a connection's packets: the relay, or a direct path. Used
// only by the pathfinder's run goroutine.
type carrier struct {
	conn   *Conn
	link   *link
	list   *checklist
	pinger *pinger
	sizes  *pathSizes

	path  *directPath // nil: the relay carries the packets
	since time.Time   // when the relay, or path, began to
	// left is the direct path that a dialer has come from, while it does not know
	// yet whether the relay works: the peer may still be there. nil if path is set.
	left *directPath

	migrations chan migration // the result of the one that is under way
	relayPath  relayPath
}

// directPath is a path from this side to the peer, without the relay.
type directPath struct {
	remote   netip.AddrPort // of the peer
	liveness liveness
	// quicPath and transport are those that a dialer has migrated to. An accepter has
	// none: its quic-go follows the dialer.
	quicPath  *quic.Path
	transport *directTransport
}

func newCarrier(c *Conn, list *checklist, p *pinger, sizes *pathSizes) carrier {
	return carrier{
		conn:       c,
		link:       c.link,
		list:       list,
		pinger:     p,
		sizes:      sizes,
		since:      c.began,
		migrations: make(chan migration, 1),
		relayPath:  relayPath{results: make(chan relayPathResult, 1)},
	}
}

// isDirect says whether a direct path carries the packets.
func (c *carrier) isDirect() bool { return c.path != nil }

// hasMigrated says whether this side is a dialer that has migrated to a direct path.
func (c *carrier) hasMigrated() bool { return c.path != nil && c.path.transport != nil }

// remote is the peer's address on the direct path, or the zero AddrPort if the relay
// carries the packets.
func (c *carrier) remote() netip.AddrPort {
	if c.path == nil {
		return netip.AddrPort{}
	}
	return c.path.remote
}

// enter makes a direct path the carrier, or the relay if path is nil. It is the only
// place where the carrier changes.
func (c *carrier) enter(path *directPath, why PathReason, now time.Time) {
	switch {
	case path != nil:
		c.left = nil
		c.link.direct.dead.Store(nil)
		c.link.direct.activity.reset(now)
		c.link.activity.forgive()
		path.liveness = liveness{rtt: c.conn.ConnectionStats().SmoothedRTT}
		if p := c.list.find(path.remote); p != nil && p.rtt > 0 {
			path.liveness.rtt = p.rtt
		}
		c.conn.counters.succeeded(path.remote.Addr(), now.Sub(c.conn.began))
	case c.hasMigrated():
		c.left = c.path
	}
	c.path, c.since = path, now
	if path == nil {
		c.sizes.direct.stop()
	}
	c.report(why)
}

// report tells the application what carries the packets now, and why.
func (c *carrier) report(why PathReason) {
	c.conn.paths.change(func(p *Path) {
		p.Kind, p.Remote = c.link.place()
		p.Local, p.Why = c.link.observed(), why
		p.Relay = c.link.relayName()
		if c.path != nil {
			p.Kind, p.Remote = kindOf(c.path.remote.Addr()), c.path.remote
			if q := c.list.find(c.path.remote); q != nil && q.observed.IsValid() {
				p.Local = q.observed
			}
		}
		if why == WhyNoAnswer || why == WhyNotUsable || why == WhyPunched {
			p.Tried = c.list.results()
		}
	})
	c.conn.endpoint.log.Info("path", "peer", c.conn.remote, "path", c.conn.Path())
}

// follow takes note of an accepter's quic-go that has followed the dialer: the path of
// a server is its client's to choose. It returns true if there is a direct path that
// was not there before.
func (c *carrier) follow(now time.Time) bool {
	at := udp.AddrPort(c.conn.Conn.RemoteAddr())
	if dead := c.link.direct.dead.Load(); at == c.link.relay || dead != nil && at == *dead {
		at = netip.AddrPort{}
	}
	switch {
	case at == c.remote():
		return false
	case !at.IsValid():
		c.enter(nil, WhyPeerMoved, now)
		return false
	}
	why := WhyPunched
	if c.isDirect() {
		why = WhyPeerMoved
	}
	c.sizes.restartDirect(baseSize, now)
	c.enter(&directPath{remote: at}, why, now)
	return true
}

// watch checks the direct path in use, and leaves it if it is dead. It returns when to
// look again.
func (c *carrier) watch(now time.Time) (next time.Time, died bool) {
	if c.path == nil {
		// A server's quic-go does not say when it follows its client.
		if c.link.role == control.Accepter && c.list.best() != nil {
			return now.Add(askEvery / 3), false
		}
		return time.Time{}, false
	}
	path, a := c.path, &c.link.direct.activity
	switch {
	case c.link.direct.dead.Load() != nil:
		// It has been left already. The dialer will follow.
	case path.liveness.dead(a, now):
		c.abandon(now)
		return now, true
	case path.liveness.suspect(a, now):
		_, _ = c.pinger.ping(path.remote, 0, now)
		path.liveness.ask(now)
	}
	return now.Add(path.liveness.period(a, now)), false
}

// isSilent says whether a dialer's direct path owes an answer.
func (c *carrier) isSilent(now time.Time) bool {
	return c.hasMigrated() && c.link.direct.activity.silence(now) >= suspectAfter
}

// abandon leaves a direct path that has died. A dialer goes back to the relay. An
// accepter cannot, but what its quic-go sends to the dead address goes to the relay
// from now on (sendDirect), which tells the dialer.
func (c *carrier) abandon(now time.Time) {
	c.conn.counters.fallback()
	c.shortenKeepAlive(now)
	dead := c.path.remote
	c.link.size.grant(int(c.link.direct.size.granted.Load())) // an accepter's quic-go goes on to send packets of this size
	c.link.direct.dead.Store(&dead)
	if c.link.role == control.Dialer {
		c.switchToRelay()
	}
	c.link.hasten()
	c.enter(nil, WhyPathDied, now)
}

// shortenKeepAlive makes keepalives more frequent if the path has died in silence: a
// NAT has forgotten it.
func (c *carrier) shortenKeepAlive(now time.Time) {
	configured := c.conn.endpoint.conf.KeepAlive
	silent := !c.link.direct.activity.heardSince(now.Add(-shortestKeepAlive))
	if configured > 0 && silent {
		present := time.Duration(c.conn.keepAlive.Load())
		c.conn.keepAlive.Store(int64(max(present/2, min(configured, shortestKeepAlive))))
	}
}

// answered takes the answer to a ping. It returns true if the connection has gone back
// to a direct path because of it. migrating says that a migration is under way.
func (c *carrier) answered(sequence uint64, ping sentPing, migrating bool, now time.Time) (returned bool) {
	from := ping.remote
	if from == c.remote() {
		c.sizes.direct.answer(sequence, now)
	}
	switch {
	case from != c.remote() && c.isSilent(now) && !migrating:
		c.retarget(from, now)
	case c.left != nil && from == c.left.remote && !migrating:
		if c.forgetLeft(); c.left != nil && now.Sub(c.since) >= relayPatience {
			returned = c.rejoin(now)
		}
	}
	if from == c.remote() {
		c.path.liveness.alive(&c.link.direct.activity, now)
		c.path.liveness.rtt = now.Sub(ping.at)
	}
	return returned
}

// retarget follows a peer whose address has changed, because its NAT has forgotten the
// one in use, or because it has moved. The peer has answered there. QUIC does not
// notice.
func (c *carrier) retarget(to netip.AddrPort, now time.Time) {
	c.path.transport.remote.Store(&to)
	c.path.remote = to
	c.sizes.restartDirect(baseSize, now)
	c.link.direct.activity.reset(now)
	c.path.liveness = liveness{rtt: c.path.liveness.rtt}
	c.report(WhyPeerMoved)
}

// enforceDirectOnly ends a DirectOnly connection that has been without a direct path
// for too long. It returns when that is.
func (c *carrier) enforceDirectOnly(now time.Time) time.Time {
	if c.conn.endpoint.conf.Policy != DirectOnly || c.isDirect() {
		return time.Time{}
	}
	due := c.since.Add(directOnlyPatience)
	if !due.After(now) {
		_ = c.conn.CloseWithError(CodeNoDirectPath, ErrNoDirectPath.Error())
		return time.Time{}
	}
	return due
}
