package relay

import (
	"context"
	"net/netip"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/datapath"
)

// lateBudget is how many packets with an ID below those that the offload knows are
// taken for late ones. If there are more, the leg still uses that ID.
const lateBudget = 64

// offloadNextLocked makes the offload know the IDs that a leg may use whose next new
// ID has the counter next.
func (l *leg) offloadNextLocked(next uint64) {
	first := next - min(next, kernelIDs-1)
	if first > l.inOffload.counters.Lo || l.inOffload.counters.Len() == 0 {
		due := first
		if l.inOffload.counters.Len() > 0 {
			due = max(due, l.due.Load())
		}
		if first >= l.inOffload.counters.Hi {
			l.inOffload.clear(l) // an old ID, far below, would be taken for one that is due
		}
		l.setDueLocked(due)
		l.offloadFromLocked(first)
	}
}

// offloadAroundLocked makes the offload know the IDs around the one that the leg uses.
func (l *leg) offloadAroundLocked(counter uint64) {
	l.offloadFromLocked(counter - min(counter, 1))
	l.setDueLocked(counter + 1)
}

// setDueLocked sets from which counter on a packet moves the IDs that the offload knows. An offload
// with IDs knows no others than those near that counter.
func (l *leg) setDueLocked(counter uint64) {
	if o := l.env().offload; o.idsPerLeg() > 0 {
		o.setDue(l.session.num, l.role, counter)
		l.due.Store(counter)
	}
}

// offloadFromLocked makes the offload know as many IDs as it wants, from a counter on.
func (l *leg) offloadFromLocked(first uint64) {
	now := cid.Range{Lo: first, Hi: first + l.env().offload.idsPerLeg()}
	if now.Len() == 0 || now == l.inOffload.counters {
		return
	}
	l.inOffload.moveTo(l, now)
	l.offloadLow.Store(now.Lo)
	l.session.noteLocked()
}

// leaveOffloadLocked removes all IDs of the leg from the offload.
func (l *leg) leaveOffloadLocked() {
	l.inOffload.clear(l)
	l.offloadLow.Store(0)
}

// slideLow slides the window of the leg after an event, which has only the low bits of the
// counter: it takes the counter with these bits that is nearest above those that the
// offload knows. The event may have waited until another client has the leg, or another session
// the place of its own.
func (l *leg) slideLow(e datapath.Event) {
	l.session.mu.Lock()
	defer l.session.mu.Unlock()
	if !l.env().offload.current(e) {
		return
	}
	first := l.inOffload.counters.Lo
	l.slideLocked(first + uint64(e.Counter-uint16(first)))
}

// offloadLegs returns the addresses of the legs for the offload.
func (ses *session) offloadLegs() (out [2]datapath.Leg) {
	for r := range ses.legs {
		if a := ses.legs[r].addr.Load(); a != nil && a.local.IsValid() {
			port := ses.env.sockets.groups[a.group].addr.Port()
			out[r] = datapath.Leg{Remote: a.remote, Local: netip.AddrPortFrom(a.local, port)}
		}
	}
	return out
}

// countOffloadedLocked counts what the offload has forwarded since the last call, and
// returns which legs have sent some of that. An offload that has ended reports zero.
func (ses *session) countOffloadedLocked() (sent [2]bool) {
	for role, now := range ses.env.offload.traffic(ses.num) {
		l := &ses.legs[role]
		was := l.offloaded
		if now.Packets < was.Packets || now.Bytes < was.Bytes {
			continue
		}
		ses.env.counters.offloadPackets.Add(now.Packets - was.Packets)
		ses.env.counters.offloadBytes.Add(now.Bytes - was.Bytes) // may be counted later than its packet
		l.offloaded = now
		sent[l.role.Peer()] = now.Packets > was.Packets
	}
	return sent
}

// withdraw counts the last offloaded packets of the session, and removes it from the
// offload unless the offload is pinned, and goes on without the server. If both peers have
// ended the session, nothing goes on.
func (ses *session) withdraw(pinned bool) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.over { // its place in the offload may be another session's
		return
	}
	ses.countOffloadedLocked()
	if pinned && (ses.legs[0].liveLocked() || ses.legs[1].liveLocked()) {
		return
	}
	for r := range ses.legs {
		if l := &ses.legs[r]; l.present {
			l.leaveOffloadLocked()
		}
	}
	ses.env.offload.deleteSession(ses.num)
}

// followEvents slides windows after packets that only the offload has seen, until ctx
// is done.
func (t *table) followEvents(ctx context.Context) {
	for e := range t.env.offload.events(ctx) {
		ses := t.atSlot(e.Session)
		if ses == nil || e.Leg > 1 {
			continue
		}
		ses.legs[control.Role(e.Leg)].slideLow(e)
	}
}
