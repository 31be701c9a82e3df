package p2p

import (
	"net/netip"
	"time"
)

// decide moves the connection to the best pair when it is time to.
func (f *pathfinder) decide(now time.Time) time.Time {
	if f.choose.IsZero() || f.choose.After(now) {
		return f.choose
	}
	f.choose = time.Time{}
	best := f.list.best()
	switch {
	case best == nil || f.moving || f.policy == RelayOnly:
	case f.policy == PreferRelay && !f.conn.relayLost.Load():
	case best.addr == f.current:
	case f.direct() && !f.worthMoving(best):
	default:
		f.move(best)
	}
	return time.Time{}
}

// worthMoving says whether a pair is better than the path in use.
func (f *pathfinder) worthMoving(p *pair) bool {
	used := f.list.find(f.current)
	return used != nil && !used.answered.IsZero() && p.worthMoving(used)
}

// move begins to move the connection.
func (f *pathfinder) move(to *pair) {
	if f.forget(); f.left != nil && f.back != nil {
		return // the peer has not followed to the relay
	}
	var used *way
	if m := f.onto(); m != nil {
		used = m.way
	}
	w, err := f.link.spare(used)
	if err != nil {
		return
	}
	f.moving = true
	f.link.direct.dead.Store(nil) // it answers
	remote := to.addr
	f.conn.background.Go(func() { f.moves <- f.conn.moveTo(w, remote) })
}

// onto is the direct path that quic-go is on, or was until the relay is proved.
func (f *pathfinder) onto() *move {
	if f.using != nil {
		return f.using
	}
	return f.left
}

// moved takes note of how a move has ended.
func (f *pathfinder) moved(m move) {
	f.moving = false
	now := time.Now()
	p := f.list.find(m.remote)
	if m.err != nil {
		f.conn.endpoint.log.Debug("no direct path", "remote", m.remote, "err", m.err)
		if p != nil {
			p.answered, p.err = time.Time{}, m.err // not with QUIC
			f.unusable = true
		}
		return
	}
	why := WhyPunched
	if f.using != nil {
		why = WhyBetter
	}
	if old := f.onto(); old != nil {
		_ = old.path.Close()
	}
	f.using, f.left = &m, nil
	size := baseSize
	if p != nil {
		size = max(size, p.size)
	}
	f.measureDirect(size, now)
	f.arrive(m.remote, p, now, why)
	f.list.settle()
	f.prepare()
}

// arrive takes note that the connection is on a direct path now.
func (f *pathfinder) arrive(at netip.AddrPort, p *pair, now time.Time, why PathReason) {
	f.current, f.since = at, now
	f.link.direct.dead.Store(nil)
	f.link.direct.activity.reset(now)
	f.link.activity.forgive()
	f.vitals = vitals{rtt: f.conn.ConnectionStats().SmoothedRTT}
	if p != nil && p.rtt > 0 {
		f.vitals.rtt = p.rtt
	}
	f.round.pause = 0
	f.conn.counters.succeeded(at.Addr(), now.Sub(f.conn.began))
	f.change(why)
}

// change tells those who want to know where the connection is.
func (f *pathfinder) change(why PathReason) {
	f.conn.paths.change(func(p *Path) {
		p.Kind, p.Remote, p.Local, p.Why = Relayed, f.link.remote(), f.link.observed(), why
		if f.direct() {
			p.Kind, p.Remote = kindOf(f.current.Addr()), f.current
			if q := f.list.find(f.current); q != nil && q.observed.IsValid() {
				p.Local = q.observed
			}
		}
		if why == WhyNoAnswer || why == WhyNotUsable || why == WhyPunched {
			p.Tried = f.list.results()
		}
	})
	f.conn.endpoint.log.Info("path", "peer", f.conn.remote, "path", f.conn.Path())
}
