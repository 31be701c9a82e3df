package relay

import (
	"encoding/base64"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
)

// tokenRing makes session tokens with the key of [Config.Secret], and also accepts those
// that were made with the keys of [Config.OldSecrets] and [Config.NextSecret].
type tokenRing struct {
	tokenKey
	old []tokenKey
	// oldUses counts the tokens that were accepted, and made with an old key.
	oldUses atomic.Uint64
}

// accounts returns the tags that an account can have: that of the current key, and those
// that sessions have whose tokens were made with an old key.
func (r *tokenRing) accounts(name string) []accountTag {
	tags := []accountTag{r.account(name)}
	for i := range r.old {
		tags = append(tags, r.old[i].account(name))
	}
	return tags
}

// join makes the token with which the accepter can register its leg until expiry.
func (r *tokenRing) join(session control.SessionID, account accountTag, expiry time.Time) string {
	return r.seal(joinGrant(session), content{expiry: expiry, account: account})
}

// resume makes the token with which the holder of key can register its leg again.
func (r *tokenRing) resume(session control.SessionID, role control.Role, key cid.Key, c content) string {
	return r.seal(resumeGrant(session, role, key), c)
}

// openJoin checks a join token, and returns the account of its session.
func (r *tokenRing) openJoin(token string, session control.SessionID, now time.Time) (accountTag, bool) {
	c, ok := r.open(token, joinGrant(session), now)
	return c.account, ok
}

// openResume checks a resume token.
func (r *tokenRing) openResume(token string, session control.SessionID, role control.Role, key cid.Key, now time.Time) (content, bool) {
	return r.open(token, resumeGrant(session, role, key), now)
}

// open checks a token with each key that may have made it.
func (r *tokenRing) open(token string, g grant, now time.Time) (content, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) != tokenLen1 && (len(b) != tokenLen2 || b[0] != tokenVersion) {
		return content{}, false
	}
	if r.names(b) {
		if c, ok := r.tokenKey.open(g, b); ok {
			return c, now.Before(c.expiry)
		}
	}
	for i := range r.old {
		if !r.old[i].names(b) {
			continue
		}
		if c, ok := r.old[i].open(g, b); ok && now.Before(c.expiry) {
			r.oldUses.Add(1)
			return c, true
		}
	}
	return content{}, false
}
