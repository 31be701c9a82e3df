package relay

import (
	"encoding/binary"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/datapath"
)

// A program that is pinned forwards while no server runs. Each server keeps a note
// on every session there, in the kernel's memory, so that the next one goes on
// where it was: with the same legs, whose clients have yet to come back.

// noteVersion is the first byte of a note. Another one is of a server that this
// one does not understand; zero is none.
const noteVersion = 1

// note is what there is to know of a session. The addresses are in the stage.
type note struct {
	Version uint8
	Joined  bool
	ID      control.SessionID
	Account accountTag
	Legs    [2]legNote
}

// legNote is one of its legs. What has ended is not there.
type legNote struct {
	Present bool
	Key     cid.Key
	TTL     time.Duration
	Near    uint64 // the first ID that the program knows
}

// noteLocked keeps a note on a session as it is now.
func (s *Server) noteLocked(ses *session) {
	n := note{Version: noteVersion, Joined: ses.joined, ID: ses.id, Account: ses.account}
	for role := range ses.legs {
		if l := &ses.legs[role]; l.present && l.ended.IsZero() {
			n.Legs[role] = legNote{Present: true, Key: l.key, TTL: l.ttl, Near: l.near.Lo}
		}
	}
	b, err := binary.Append(nil, binary.BigEndian, &n)
	if err != nil {
		panic("relay: a note of variable size: " + err.Error())
	}
	s.offload.note(ses.num, b)
}

// takeOver goes on with the sessions of a server before this one.
func (s *Server) takeOver(stage *datapath.Relay) error {
	if !stage.Pinned() {
		return nil
	}
	for slot := range stage.Sessions() {
		b, err := stage.Note(slot)
		if err != nil {
			return err
		}
		legs, err := stage.Session(slot)
		if err != nil {
			return err
		}
		var n note
		_, err = binary.Decode(b, binary.BigEndian, &n)
		if err == nil && s.restorable(slot, &n) && legs[0].Valid() && legs[1].Valid() {
			s.restore(slot, &n, legs)
		} else if err := stage.DeleteSession(slot); err != nil {
			return err
		}
	}
	s.forgetStale(stage)
	if sessions, legs := s.sessions.count(); sessions > 0 {
		s.log.Info("sessions taken over", "sessions", sessions, "legs", legs)
	}
	return nil
}

// restorable says whether a note makes sense to this server, and there is room
// for its session. What is not restored is deleted, lest one after it finds it.
func (s *Server) restorable(slot uint32, n *note) bool {
	return n.Version == noteVersion && int(slot) < s.conf.MaxSessions && s.sessions.find(n.ID) == nil
}

// restore makes a session what it was. A session with one leg is not restored:
// nothing can be forwarded for it, and the peer comes back.
func (s *Server) restore(slot uint32, n *note, at [2]datapath.Leg) {
	counted, err := s.countSession(at[0].Remote)
	if err != nil {
		counted = nil // it is there all the same, beyond the quota
	}
	ses := s.sessions.restore(slot, n.ID, n.Account, counted)
	ses.mu.Lock()
	defer ses.mu.Unlock()
	ses.joined = n.Joined
	traffic := s.offload.traffic(ses.num)
	now := time.Now()
	for role := range control.Role(2) {
		l, was := &ses.legs[role], &n.Legs[role]
		l.offloaded = traffic[role]
		if !was.Present {
			continue
		}
		l.present, l.key, l.client = true, was.Key, new(client)
		l.owner = ownerOf(ses.id, role, was.Key)
		l.ids = was.Key.Deriver(cid.Peer)
		l.ttl, l.refreshed = max(minTTL, min(was.TTL, s.conf.TTL)), now
		l.near = cid.Range{Lo: was.Near, Hi: was.Near + s.offload.near()}
		l.low.Store(was.Near)
		l.window = cid.NewWindow(was.Near + 1)
		l.addr.Store(&legAddr{
			remote: at[role].Remote,
			local:  at[role].Local.Addr(),
			group:  s.sockets.toward(at[role].Local.Addr(), at[role].Remote.Addr()),
		})
		s.renewLocked(ses, role, now)
		s.approachLocked(ses, role, was.Near+1)
	}
	if now := s.ways(ses); now != at {
		s.offload.putSession(ses.num, now) // the relay has another port
	}
}

// forgetStale deletes the IDs that a server has left which was stopped between two
// steps.
func (s *Server) forgetStale(stage *datapath.Relay) {
	var stale []cid.ID
	for id, r := range stage.Routes() {
		ses := s.sessions.atSlot(r.Session)
		if ses == nil || !ses.legs[r.Leg].near.HasLow(uint32(r.Counter)) {
			stale = append(stale, id)
		}
	}
	for _, id := range stale {
		s.offload.deleteRoute(id)
	}
}
