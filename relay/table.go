package relay

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/quota"
)

// slotBits of a session's number say where in the table it is; the rest tells
// it from those that were there before, in this table or another.
const slotBits = 24

// table holds the sessions. Forwarding loops find one by its number without a
// lock; whatever is rarer finds it by its ID.
type table struct {
	slots      []atomic.Pointer[session]
	perAccount int

	mu       sync.Mutex // guards the following
	byID     map[control.SessionID]*session
	accounts map[accountTag]int
	free     []uint32 // slots that were used before
	next     uint32   // the first slot never used
	uses     uint64
}

func newTable(max, perAccount int) *table {
	return &table{
		slots:      make([]atomic.Pointer[session], max),
		perAccount: perAccount,
		byID:       make(map[control.SessionID]*session),
		accounts:   make(map[accountTag]int),
		uses:       rand.Uint64N(1 << (64 - slotBits - 1)),
	}
}

// at returns the session with a number, or nil if it is over.
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

// route is where packets with an ID go: to a leg of a session of ours.
type route struct {
	ses     *session
	role    control.Role
	counter uint64
}

// route returns where a store says that packets go, if the session agrees. A
// store may have been filled by others as well, or before a restart.
func (t *table) route(a *cid.Association) (route, bool) {
	ses := t.at(a.Session)
	if ses == nil || int(a.Leg) >= len(ses.legs) {
		return route{}, false
	}
	if holder := ses.legs[a.Leg].holder.Load(); holder == nil || *holder != a.Owner {
		return route{}, false
	}
	return route{ses, control.Role(a.Leg), a.Counter}, true
}

// atSlot returns the session in a slot, or nil.
func (t *table) atSlot(slot uint32) *session {
	if int(slot) >= len(t.slots) {
		return nil
	}
	return t.slots[slot].Load()
}

// find returns the session with an ID, or nil.
func (t *table) find(id control.SessionID) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// uncounted is for sessions that no quota counts.
func uncounted() (*quota.Slot, error) { return nil, nil }

// open returns the session with an ID, and makes it if there is none and count
// admits it. The slot that it is given, if any, is the session's.
func (t *table) open(id control.SessionID, account accountTag, count func() (*quota.Slot, error)) (*session, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.byID[id]; s != nil {
		return s, nil
	}
	if t.accounts[account] >= t.perAccount {
		return nil, errAccountSessions
	}
	counted, err := count()
	if err != nil {
		return nil, errSourceSessions
	}
	slot, ok := t.slotLocked()
	if !ok {
		release(counted)
		return nil, errTooManySessions
	}
	return t.putLocked(slot, id, account, counted), nil
}

// restore puts a session into a slot of a table that was never used otherwise.
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
	s := &session{num: t.uses<<slotBits | uint64(slot), id: id, account: account, quota: counted}
	t.byID[id] = s
	t.accounts[account]++
	t.slots[slot].Store(s)
	return s
}

func (t *table) slotLocked() (uint32, bool) {
	if n := len(t.free); n > 0 {
		slot := t.free[n-1]
		t.free = t.free[:n-1]
		return slot, true
	}
	if int(t.next) == len(t.slots) {
		return 0, false
	}
	t.next++
	return t.next - 1, true
}

// remove forgets a session.
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

// release gives a session's slot back.
func release(slot *quota.Slot) {
	if slot != nil {
		slot.Release()
	}
}

// close gives the slots of all sessions back.
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
