package relay

import (
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/datapath"
)

// offload is told what has been decided about sessions, so that something faster
// than the forwarding loop can keep a copy and act on it. Without it every packet
// takes the loop. Calls about one session come one at a time and in order; what
// fails is left to the loop.
type offload interface {
	// putRoute says who is behind an ID that may come next.
	putRoute(id cid.ID, a cid.Association)
	// deleteRoute says that nobody is any more.
	deleteRoute(id cid.ID)
	// setDue says from which counter on an ID of a leg is news.
	setDue(num uint64, role control.Role, counter uint64)
	// putSession says where the two legs of a session are.
	putSession(num uint64, legs [2]datapath.Leg)
	// deleteSession says that the session is over.
	deleteSession(num uint64)
	// traffic returns what has been forwarded for a session.
	traffic(num uint64) [2]datapath.Traffic
	// note keeps what another server should know of a session.
	note(num uint64, note []byte)
	// near is how many IDs of a leg may be known: 0 if none are wanted.
	near() uint64
}

// noOffload leaves everything to the forwarding loop.
type noOffload struct{}

var _ offload = noOffload{}

func (noOffload) putRoute(cid.ID, cid.Association)          {}
func (noOffload) deleteRoute(cid.ID)                        {}
func (noOffload) setDue(uint64, control.Role, uint64)       {}
func (noOffload) putSession(uint64, [2]datapath.Leg)        {}
func (noOffload) deleteSession(uint64)                      {}
func (noOffload) traffic(uint64) (none [2]datapath.Traffic) { return none }
func (noOffload) note(uint64, []byte)                       {}
func (noOffload) near() uint64                              { return 0 }

// nearIDs is how many IDs of a leg the kernel knows: the one in use, one before it
// whose packets may come late, and three after it. quic-go keeps four ready, and
// uses each for thousands of packets, long enough to be told of the next.
const nearIDs = 5

// nearPinned is how many it knows that must do while no server runs to tell it
// more: all that the window has ahead.
const nearPinned = cid.Ahead

// kernelOffload lets an XDP program forward.
type kernelOffload struct {
	stage  *datapath.Relay
	log    *slog.Logger
	errors atomic.Uint64
}

var _ offload = (*kernelOffload)(nil)

// index is a session's in the program's table: its slot in ours. There may be no
// room for it there.
func (o *kernelOffload) index(num uint64) (uint32, bool) {
	slot := uint32(num & (1<<slotBits - 1))
	return slot, slot < o.stage.Sessions()
}

func (o *kernelOffload) near() uint64 {
	if o.stage.Pinned() {
		return nearPinned
	}
	return nearIDs
}

func (o *kernelOffload) putRoute(id cid.ID, a cid.Association) {
	if index, ok := o.index(a.Session); ok {
		o.check(o.stage.PutRoute(id, datapath.Route{Session: index, Leg: a.Leg, Counter: a.Counter}))
	}
}

func (o *kernelOffload) deleteRoute(id cid.ID) { o.check(o.stage.DeleteRoute(id)) }

func (o *kernelOffload) setDue(num uint64, role control.Role, counter uint64) {
	if index, ok := o.index(num); ok {
		o.check(o.stage.SetDue(index, uint8(role), counter))
	}
}

func (o *kernelOffload) putSession(num uint64, legs [2]datapath.Leg) {
	index, ok := o.index(num)
	if !ok {
		o.check(datapath.ErrFull)
		return
	}
	o.check(o.stage.PutSession(index, legs))
}

func (o *kernelOffload) deleteSession(num uint64) {
	if index, ok := o.index(num); ok {
		o.check(o.stage.DeleteSession(index))
	}
}

func (o *kernelOffload) traffic(num uint64) [2]datapath.Traffic {
	index, ok := o.index(num)
	if !ok {
		return [2]datapath.Traffic{}
	}
	t, err := o.stage.Traffic(index)
	o.check(err)
	return t
}

func (o *kernelOffload) note(num uint64, note []byte) {
	if index, ok := o.index(num); ok {
		o.check(o.stage.PutNote(index, note))
	}
}

// check counts what failed, and logs the first of it: those packets take the
// loop.
func (o *kernelOffload) check(err error) {
	if err == nil || errors.Is(err, datapath.ErrClosed) {
		return
	}
	if o.errors.Add(1) == 1 {
		o.log.Warn("the kernel does not take all sessions; the rest is forwarded here, and counted", "err", err)
	}
}

// ways are the legs of a session as the offload wants them.
func (s *Server) ways(ses *session) (out [2]datapath.Leg) {
	for r := range ses.legs {
		if a := ses.legs[r].addr.Load(); a != nil && a.local.IsValid() {
			port := s.sockets.groups[a.group].addr.Port()
			out[r] = datapath.Leg{Remote: a.remote, Local: netip.AddrPortFrom(a.local, port)}
		}
	}
	return out
}

// expectLocked lets the offload know the IDs that a leg may use which makes the
// one with the counter next after them.
func (s *Server) expectLocked(ses *session, role control.Role, next uint64) {
	l := &ses.legs[role]
	if first := next - min(next, nearIDs-1); first > l.near.Lo || l.near.Len() == 0 {
		s.nearLocked(ses, role, first)
	}
}

// approachLocked lets the offload know the IDs about the one that a leg uses.
func (s *Server) approachLocked(ses *session, role control.Role, counter uint64) {
	s.nearLocked(ses, role, counter-min(counter, 1))
	if s.offload.near() > 0 {
		s.offload.setDue(ses.num, role, counter+1)
		ses.legs[role].due.Store(counter + 1)
	}
}

// nearLocked lets the offload know the IDs from a counter on, and no others.
func (s *Server) nearLocked(ses *session, role control.Role, first uint64) {
	l := &ses.legs[role]
	old, now := l.near, cid.Range{Lo: first, Hi: first + s.offload.near()}
	if now.Len() == 0 || now == old {
		return
	}
	a := cid.Association{Owner: l.owner, Session: ses.num, Leg: uint8(role)}
	for a.Counter = now.Lo; a.Counter < now.Hi; a.Counter++ {
		if a.Counter < old.Lo || a.Counter >= old.Hi {
			s.offload.putRoute(l.ids.ID(a.Counter), a)
		}
	}
	for c := old.Lo; c < old.Hi; c++ {
		if c < now.Lo || c >= now.Hi {
			s.offload.deleteRoute(l.ids.ID(c))
		}
	}
	l.near = now
	l.low.Store(now.Lo)
	s.noteLocked(ses)
}

// lateBudget is how many packets with an ID before those that the offload knows
// are taken for late ones. More of them say that the leg uses it still.
const lateBudget = 64

// departLocked takes all IDs of a leg from the offload.
func (s *Server) departLocked(l *leg) {
	for c := l.near.Lo; c < l.near.Hi; c++ {
		s.offload.deleteRoute(l.ids.ID(c))
	}
	l.near = cid.Range{}
	l.low.Store(0)
}

// followEvents slides windows after packets that only the offload has seen.
func (s *Server) followEvents(stage *datapath.Relay) {
	for e := range stage.Events(s.closing) {
		ses := s.sessions.atSlot(e.Session)
		if ses == nil || e.Leg > 1 {
			continue
		}
		s.slideLow(ses, control.Role(e.Leg), e.Counter)
	}
}

// slideLow is slide for the low bits of a counter: of those that have them, the
// one near those that are known.
func (s *Server) slideLow(ses *session, role control.Role, low uint32) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	known := ses.legs[role].near.Lo
	s.slideLocked(ses, role, known+uint64(low-uint32(known)))
}

// accountLocked takes note of what the offload has forwarded, which nobody else
// sees, and says who has been heard by that. An offload that has ended says zero.
func (s *Server) accountLocked(ses *session) (heard [2]bool) {
	for role, now := range s.offload.traffic(ses.num) {
		l := &ses.legs[role]
		if now.Packets > l.offloaded.Packets {
			s.counters.offloadPackets.Add(now.Packets - l.offloaded.Packets)
			s.counters.offloadBytes.Add(now.Bytes - l.offloaded.Bytes)
			l.offloaded = now
			heard[control.Role(role).Peer()] = true
		}
	}
	return heard
}
