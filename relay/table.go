package relay

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/quota"
)

// slotBits is how many low bits of a session's number are its slot in the table. The
// others tell the session from earlier ones, in this table or another server's.
const slotBits = 24

// table holds the sessions. The forwarding loops find a session by its number, without
// a lock; everything else finds it by its ID.
type table struct {
	env        *env
	slots      []atomic.Pointer[session]
	perAccount int

	mu       sync.Mutex // guards the following
	byID     map[control.SessionID]*session
	accounts map[accountTag]int // sessions of each account
	free     []uint32           // slots that are free again
	next     uint32             // the first slot never used
	uses     uint64             // the high bits of the last number
}

func newTable(e *env, max, perAccount int) *table {
	return &table{
		env:        e,
		slots:      make([]atomic.Pointer[session], max),
		perAccount: perAccount,
		byID:       make(map[control.SessionID]*session),
		accounts:   make(map[accountTag]int),
		uses:       rand.Uint64N(1 << (64 - slotBits - 1)),
	}
}

// at returns the session with a number, or nil if there is none.
func (t *table) at(num uint64) *session {
	slot := num & (1<<slotBits - 1)
	if slot >= uint64(len(t.slots)) {
		return nil
	}
	s := t.slots[slot].Load()
	if s == nil || s.num != num {
		return nil
	}
	return s
}

// route is the leg that packets with an ID go to, and the counter of the ID.
type route struct {
	leg     *leg
	counter uint64
}

// route returns the leg that a store says is behind an ID, if the session agrees. The
// entry may come from another server, or from before a restart.
func (t *table) route(a *cid.Association) (route, bool) {
	ses := t.at(a.Session)
	if ses == nil || int(a.Leg) >= len(ses.legs) {
		return route{}, false
	}
	l := &ses.legs[a.Leg]
	if owner := l.routedOwner.Load(); owner == nil || *owner != a.Owner {
		return route{}, false
	}
	return route{l, a.Counter}, true
}

// atSlot returns the session in a slot, or nil if there is none.
func (t *table) atSlot(slot uint32) *session {
	if int(slot) >= len(t.slots) {
		return nil
	}
	return t.slots[slot].Load()
}

// find returns the session with an ID, or nil if there is none.
func (t *table) find(id control.SessionID) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// noteEvicted tells the dialer of a session that its offer is not in the mailbox any more.
func (t *table) noteEvicted(s offerSession) {
	ses := t.find(s.session)
	if ses == nil || ses.account != s.account {
		return
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if l := &ses.legs[control.Dialer]; l.present {
		l.client.notify(control.Event{Type: control.EventEvicted, Session: ses.id})
	}
}

// uncounted is the count function of sessions that no quota counts.
func uncounted() (*quota.Slot, error) { return nil, nil }

// open returns the session with an ID. If there is none, open calls count, which takes
// a slot from the quota or refuses, and makes the session.
func (t *table) open(id control.SessionID, account accountTag, count func() (*quota.Slot, error)) (*session, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.byID[id]; s != nil {
		return s, nil
	}
	switch {
	case !t.hasRoomLocked(): // before the account, which may have all the room there is
		return nil, errTooManySessions
	case t.accounts[account] >= t.perAccount:
		return nil, errAccountSessions
	}
	counted, err := count()
	if err != nil {
		return nil, errSourceSessions
	}
	return t.putLocked(t.slotLocked(), id, account, counted), nil
}

// restore makes a session in a given slot. It may only be called before open.
func (t *table) restore(slot uint32, id control.SessionID, account accountTag, counted *quota.Slot) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	for ; t.next <= slot; t.next++ {
		if t.next < slot {
			t.free = append(t.free, t.next)
		}
	}
	return t.putLocked(slot, id, account, counted)
}

func (t *table) putLocked(slot uint32, id control.SessionID, account accountTag, counted *quota.Slot) *session {
	t.uses++
	s := newSession(t, t.uses<<slotBits|uint64(slot), id, account, counted)
	t.byID[id] = s
	t.accounts[account]++
	t.slots[slot].Store(s)
	return s
}

// slotLocked takes a free slot. There is one: see hasRoomLocked.
func (t *table) slotLocked() uint32 {
	if n := len(t.free); n > 0 {
		slot := t.free[n-1]
		t.free = t.free[:n-1]
		return slot
	}
	t.next++
	return t.next - 1
}

// hasRoomLocked says whether there is a slot.
func (t *table) hasRoomLocked() bool { return len(t.free) > 0 || int(t.next) < len(t.slots) }

// remove removes a session, and releases its slots here and at the quota.
func (t *table) remove(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID[s.id] != s {
		return
	}
	release(s.quota)
	slot := uint32(s.num & (1<<slotBits - 1))
	t.slots[slot].Store(nil)
	delete(t.byID, s.id)
	t.free = append(t.free, slot)
	if t.accounts[s.account]--; t.accounts[s.account] == 0 {
		delete(t.accounts, s.account)
	}
}

// release releases the quota's slot of a session. slot may be nil.
func release(slot *quota.Slot) {
	if slot != nil {
		slot.Release()
	}
}

// close releases the quota's slots of all sessions.
func (t *table) close() {
	for _, s := range t.snapshot() {
		release(s.quota)
	}
}

// snapshot returns the sessions that exist now.
func (t *table) snapshot() []*session {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*session, 0, len(t.byID))
	for _, s := range t.byID {
		all = append(all, s)
	}
	return all
}

// count returns how many sessions and legs exist now.
func (t *table) count() (sessions, legs int) {
	all := t.snapshot()
	for _, s := range all {
		for i := range s.legs {
			if s.legs[i].addr.Load() != nil {
				legs++
			}
		}
	}
	return len(all), legs
}
