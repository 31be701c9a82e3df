package relay

import (
	"encoding/binary"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/datapath"
)

// A pinned XDP program goes on to forward when the server ends. For each session the
// server keeps a note in the kernel's memory, with which the next server continues the
// session. The clients of its legs come back to that server later.

// noteVersion is the first byte of a note. A server ignores notes of another version.
// Zero: there is no note.
const noteVersion = 1

// note is what the next server has to know of a session, except for the addresses of
// its legs, which the program has. A note of an earlier server may be shorter; what it lacks
// is zero.
type note struct {
	Version uint8
	Flags   uint8
	ID      control.SessionID
	Account accountTag
	Legs    [2]legNote
	Opened  uint32 // Unix seconds; 0: not known
}

// Flags of a note, and where it has the claims of the two legs, of two bits each.
const (
	noteJoined = 1 << 0
	noteHere   = 1 << 1 // the session was opened at this relay
	noteDialed = 1 << 2
	noteClaims = 4
)

// legNote is the part of a note about one leg.
type legNote struct {
	Present bool // and not ended
	Key     cid.Key
	TTL     time.Duration
	Near    uint64 // the counter of the first ID that the program knows
}

// noteLocked writes the note of the session as it is now.
func (ses *session) noteLocked() {
	n := note{Version: noteVersion, Flags: ses.flagsLocked(), ID: ses.id, Account: ses.account, Opened: unixSeconds(ses.opened)}
	for r := range ses.legs {
		if l := &ses.legs[r]; l.liveLocked() {
			n.Flags |= uint8(l.claim) << (noteClaims + 2*r)
			n.Legs[r] = legNote{Present: true, Key: l.key, TTL: l.ttl, Near: l.inOffload.counters.Lo}
		}
	}
	b, err := binary.Append(nil, binary.BigEndian, &n)
	if err != nil {
		panic("relay: note has no fixed size: " + err.Error())
	}
	ses.env.offload.note(ses.num, b)
}

// flagsLocked returns the flags of the session's note.
func (ses *session) flagsLocked() (flags uint8) {
	if ses.joined {
		flags |= noteJoined
	}
	if ses.here {
		flags |= noteHere
	}
	if ses.dialed {
		flags |= noteDialed
	}
	return flags
}

// takeOver continues the sessions that an earlier server has left in a pinned program.
// It deletes those that it cannot continue.
func (g *registrar) takeOver(stage *datapath.Relay) error {
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
		if err == nil && g.restorable(slot, &n) && legs[0].Valid() && legs[1].Valid() {
			g.restore(slot, &n, legs)
		} else if err := stage.DeleteSession(slot); err != nil {
			return err
		}
	}
	g.sessions.deleteStaleRoutes(stage)
	g.sessions.putLostRoutes()
	if sessions, legs := g.sessions.count(); sessions > 0 {
		g.env.log.Info("sessions taken over", "sessions", sessions, "legs", legs)
	}
	return nil
}

// restorable says whether the server understands a note, and has room for its session.
func (g *registrar) restorable(slot uint32, n *note) bool {
	return n.Version == noteVersion && int(slot) < g.env.conf.MaxSessions && g.sessions.find(n.ID) == nil
}

// restore makes a session from its note. A session without two addresses is not
// restored: the program forwards nothing for it, and its peers register again.
func (g *registrar) restore(slot uint32, n *note, at [2]datapath.Leg) {
	counted, err := g.countSession(at[0].Remote)
	if err != nil {
		counted = nil // the session exists, even if the quota has no room for it
	}
	ses := g.sessions.restore(slot, n.ID, n.Account, counted)
	ses.mu.Lock()
	defer ses.mu.Unlock()
	ses.joined, ses.here, ses.dialed = n.Flags&noteJoined != 0, n.Flags&noteHere != 0, n.Flags&noteDialed != 0
	ses.opened = fromUnixSeconds(n.Opened)
	traffic := ses.env.offload.traffic(ses.num)
	now := time.Now()
	for r := range ses.legs {
		l := &ses.legs[r]
		l.offloaded = traffic[r]
		if was := &n.Legs[r]; was.Present {
			l.restoreLocked(was, at[r], now)
			l.claim = claim(n.Flags>>(noteClaims+2*r)) & claimMask
		}
	}
	if legs := ses.offloadLegs(); legs != at {
		ses.env.offload.putSession(ses.num, legs) // the server has another port
	}
}

func (l *leg) restoreLocked(was *legNote, at datapath.Leg, now time.Time) {
	e := l.env()
	l.present, l.client = true, new(client)
	l.setKeyLocked(was.Key)
	l.ttl, l.lastRefreshed = max(minTTL, min(was.TTL, e.conf.TTL)), now
	l.inOffload.counters = cid.Range{Lo: was.Near, Hi: was.Near + e.offload.idsPerLeg()}
	l.offloadLow.Store(was.Near)
	l.window = cid.NewWindow(was.Near + 1)
	l.addr.Store(&legAddr{
		remote: at.Remote,
		local:  at.Local.Addr(),
		group:  e.sockets.toward(at.Local.Addr(), at.Remote.Addr()),
	})
	l.renewLocked(now)
	l.offloadAroundLocked(was.Near + 1)
}

// deleteStaleRoutes deletes the routes of the program that belong to no session. A
// server that was killed may have left some.
func (t *table) deleteStaleRoutes(stage *datapath.Relay) {
	stage.KeepRoutes(func(r datapath.Route) (cid.ID, bool) {
		ses := t.atSlot(r.Session)
		if ses == nil {
			return cid.ID{}, false
		}
		l := &ses.legs[r.Leg]
		known := l.inOffload.counters
		counter := known.Lo + (r.Counter-known.Lo)%(1<<datapath.CounterBits)
		if !contains(known, counter) {
			return cid.ID{}, false
		}
		return l.key.ID(cid.Peer, counter), true
	})
}

// putLostRoutes puts the routes that the program lacks. A server that was killed may
// have just deleted some.
func (t *table) putLostRoutes() {
	for _, ses := range t.snapshot() {
		ses.mu.Lock()
		for r := range ses.legs {
			if l := &ses.legs[r]; l.present {
				l.inOffload.renew(l)
			}
		}
		ses.mu.Unlock()
	}
}
