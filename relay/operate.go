package relay

import (
	"encoding/hex"
	"iter"
	"net/netip"
	"sync"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// Session is what there is to know of a session at one moment.
type Session struct {
	// ID names it, as in the log.
	ID string
	// Account stands for the account that it is counted under. It is
	// [Server.AccountTag] of the account's name, which the server does not keep.
	Account string
	// Legs are the dialer's and the accepter's.
	Legs [2]Leg
}

// Leg is one end of a [Session].
type Leg struct {
	// Remote is where the leg is. The zero AddrPort: it is not there (yet, or any
	// more), and nothing else is known of it.
	Remote netip.AddrPort
	// Connected says whether the control connection is there that registered or
	// refreshed the leg last.
	Connected bool
	// Heard is when the last packet came from the leg, in the kernel to the
	// second. Zero: none has.
	Heard time.Time
	// Expires is when the leg ends, if it is not refreshed and shows no other sign
	// of life until then.
	Expires time.Time
}

// Sessions yields the sessions that exist now, in no order, also those that only the
// kernel forwards for ([Config.XDP]). Those that come or go meanwhile may be missing.
// The loop may end sessions.
func (s *Server) Sessions() iter.Seq[Session] {
	return func(yield func(Session) bool) {
		for _, ses := range s.sessions.snapshot() {
			if info, ok := ses.info(); ok && !yield(info) {
				return
			}
		}
	}
}

// AccountTag returns what stands for an account in [Session.Account]: a hash, keyed
// with Config.Secret. The name is what Config.Authorize has returned, "" without it.
func (s *Server) AccountTag(name string) string { return s.secrets.tokens.account(name).String() }

// EndSession ends a session at once, in the kernel as well, and tells the peers. It
// returns false if there is none with that ID. Nobody can open it again, nor come back
// to it, at this server. One that is restarted with the same Secret does not know of
// that: it takes back whoever comes within ten TTLs with what the relay has given out,
// as after any restart.
func (s *Server) EndSession(id string) bool {
	var sid control.SessionID
	if sid.UnmarshalText([]byte(id)) != nil {
		return false
	}
	ses := s.sessions.find(sid)
	return ses != nil && s.endSession(ses)
}

// EndAccount ends all sessions of an account, as [Server.EndSession] does, and returns
// how many those were. The name is what Config.Authorize has returned, which must not
// return it any more if no session shall be opened from then on.
func (s *Server) EndAccount(name string) int {
	account := s.secrets.tokens.account(name)
	s.ended.account(account, time.Now(), s.resumeTTL())
	n := 0
	for _, ses := range s.sessions.snapshot() {
		if ses.account == account && s.endSession(ses) {
			n++
		}
	}
	return n
}

// endSession ends a session, unless it is over already.
func (s *Server) endSession(ses *session) bool {
	s.ended.session(ses.id, time.Now().Add(s.resumeTTL()))
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.over {
		return false
	}
	s.accountLocked(ses)
	for role := range control.Role(2) {
		if ses.legs[role].present {
			ses.legs[role].client.notify(control.Event{Type: control.EventGone, Session: ses.id})
			s.dropLegLocked(ses, role)
		}
	}
	s.overLocked(ses)
	return true
}

// info says what there is to know of a session that is not over.
func (ses *session) info() (Session, bool) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	out := Session{ID: ses.id.String(), Account: ses.account.String()}
	for role := range control.Role(2) {
		if l := &ses.legs[role]; l.present {
			out.Legs[role] = ses.legLocked(role)
		}
	}
	return out, !ses.over
}

func (ses *session) legLocked(role control.Role) Leg {
	l := &ses.legs[role]
	out := Leg{Remote: l.remote(), Connected: l.connected(), Expires: ses.aliveLocked(role)}
	if heard := l.heard.Load(); heard > 0 {
		out.Heard = time.Unix(0, heard)
	}
	if !l.ended.IsZero() {
		out.Expires = l.ended.Add(linger)
	}
	return out
}

func (a accountTag) String() string { return hex.EncodeToString(a[:]) }

// resumeTTL is for how long a leg may be forgotten, and come back.
func (s *Server) resumeTTL() time.Duration { return resumeTTLs * s.conf.TTL }

// endings are what the operator has ended, as long as somebody could come back to it.
type endings struct {
	mu       sync.Mutex
	sessions map[control.SessionID]time.Time // until when
	accounts map[accountTag]time.Time        // tokens that expire before are void
}

func (e *endings) session(id control.SessionID, until time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.sessions == nil {
		e.sessions = make(map[control.SessionID]time.Time)
	}
	e.sessions[id] = until
}

// account voids the tokens of an account that have been made until now, and are good
// for a time.
func (e *endings) account(a accountTag, now time.Time, good time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.accounts == nil {
		e.accounts = make(map[accountTag]time.Time)
	}
	e.accounts[a] = now.Add(good)
}

// has says whether a session has been ended.
func (e *endings) has(id control.SessionID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.sessions[id].IsZero()
}

// voids says whether a resume token is from before the end of its account.
func (e *endings) voids(c content) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return c.expiry.Before(e.accounts[c.account])
}

// expire forgets what nobody has a token for any more.
func (e *endings) expire(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, until := range e.sessions {
		if now.After(until) {
			delete(e.sessions, id)
		}
	}
	for a, until := range e.accounts {
		if now.After(until) {
			delete(e.accounts, a)
		}
	}
}
