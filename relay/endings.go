package relay

import (
	"sync"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// endings remembers the sessions and accounts that the operator has ended, for as long
// as a client can have a resume token for them.
type endings struct {
	mu       sync.Mutex
	sessions map[control.SessionID]time.Time // until when to remember the session
	accounts map[accountTag]time.Time        // tokens of the account that expire before are void
}

// session remembers that a session was ended.
func (e *endings) session(id control.SessionID, until time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.sessions == nil {
		e.sessions = make(map[control.SessionID]time.Time)
	}
	e.sessions[id] = until
}

// account voids the resume tokens of an account that expire before a time. A token that
// was made now expires then.
func (e *endings) account(a accountTag, before time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.accounts == nil {
		e.accounts = make(map[accountTag]time.Time)
	}
	e.accounts[a] = before
}

// has says whether a session has been ended.
func (e *endings) has(id control.SessionID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.sessions[id].IsZero()
}

// voids says whether the content of a resume token is void.
func (e *endings) voids(c content) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return c.expiry.Before(e.accounts[c.account])
}

// expire forgets what no valid token refers to any more.
func (e *endings) expire(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, until := range e.sessions {
		if now.After(until) {
			delete(e.sessions, id)
		}
	}
	for a, before := range e.accounts {
		if now.After(before) {
			delete(e.accounts, a)
		}
	}
}
