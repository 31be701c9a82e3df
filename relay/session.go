package relay

import (
	"crypto/hmac"
	"sync"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/quota"
)

// session is two legs, between which the relay forwards packets.
// Methods whose names end in Locked need mu.
type session struct {
	env     *env
	table   *table
	num     uint64
	id      control.SessionID
	account accountTag
	quota   *quota.Slot // nil: no quota counts the session

	// mu guards the legs' registration, not what the forwarding loops read.
	mu     sync.Mutex
	joined bool // the join token has been used
	over   bool // removed from the table
	legs   [2]leg
	// opened is when the session was first opened, in whole seconds. The zero time: that
	// is not known. here says that it was opened at this server, with an access token, and
	// dialed that its dialer's leg has been claimed at this server since then.
	opened       time.Time
	here, dialed bool
}

func newSession(t *table, num uint64, id control.SessionID, account accountTag, counted *quota.Slot) *session {
	ses := &session{env: t.env, table: t, num: num, id: id, account: account, quota: counted}
	for role := range control.Role(2) {
		ses.legs[role].init(ses, role)
	}
	return ses
}

// holds says whether a leg is present and key is its key.
func (ses *session) holds(role control.Role, key cid.Key) bool {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	l := &ses.legs[role]
	return l.present && l.key.Equal(key)
}

// madeJoin says whether a token is the join token that the dialer has made, and is still
// valid. Its leg must be there: the relay has the key from it.
func (ses *session) madeJoin(token string, now time.Time) bool {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	l := &ses.legs[control.Dialer]
	return l.present && now.Before(ses.opened.Add(ses.env.conf.OfferTTL)) &&
		hmac.Equal([]byte(token), []byte(control.JoinToken(l.key, ses.id)))
}

// begin notes how a new session was opened: with a resume token, or, if ok is false, with
// an access token.
func (ses *session) begin(resumed content, ok bool) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	ses.opened, ses.here = resumed.opened, !ok
	if !ok {
		ses.opened = time.Unix(time.Now().Unix(), 0)
	}
}

// openedAt returns when the session was first opened.
func (ses *session) openedAt() time.Time {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	return ses.opened
}

// notifyLocked sends an event to the clients of both legs.
func (ses *session) notifyLocked(e control.Event) {
	for r := range ses.legs {
		if l := &ses.legs[r]; l.present {
			l.client.notify(e)
		}
	}
}

// sweep drops, moves or renews the legs if that is due, and removes the session when
// it has none.
func (ses *session) sweep(now time.Time) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.over { // its place in the offload may be another session's
		return
	}
	for role, sent := range ses.countOffloadedLocked() {
		if sent {
			ses.legs[role].heardAt(now)
		}
	}
	legs := 0
	for r := range ses.legs {
		if ses.legs[r].sweepLocked(now) {
			legs++
		}
	}
	if legs == 0 {
		ses.removeLocked()
	}
}

// end notifies both clients, and removes the session at once. It returns false if the
// session is over already.
func (ses *session) end() bool {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.over {
		return false
	}
	ses.countOffloadedLocked()
	ses.notifyLocked(control.Event{Type: control.EventGone, Session: ses.id})
	for r := range ses.legs {
		if l := &ses.legs[r]; l.present {
			l.dropLocked()
		}
	}
	ses.removeLocked()
	return true
}

// removeLocked removes a session without legs from the offload, and then from the table, so that
// no other session can have its place meanwhile.
func (ses *session) removeLocked() {
	ses.over = true
	ses.env.offload.deleteSession(ses.num)
	ses.table.remove(ses)
	ses.env.log.Info("session over", "session", ses.id)
}

// info describes the session for the operator. It returns false if the session is over.
func (ses *session) info() (Session, bool) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	out := Session{ID: ses.id.String(), Account: ses.account.String()}
	for r := range ses.legs {
		if l := &ses.legs[r]; l.present {
			out.Legs[r] = l.infoLocked()
		}
	}
	return out, !ses.over
}
