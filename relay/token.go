package relay

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
)

// accountTag is what the relay remembers of an account: a keyed hash, so that
// tokens, which carry it, tell their holders nothing.
type accountTag [8]byte

// A session token says that its holder may have one leg of a session:
//
//	expiry (8 bytes, Unix seconds, 0: none) | account (8) | MAC (16)
//
// The MAC covers what the token is good for as well, so nothing needs to be
// remembered about tokens, and those of a relay that restarts stay good.
const (
	tokenMAC = 16
	tokenLen = 8 + 8 + tokenMAC
)

// tokenKey makes and checks session tokens.
type tokenKey [32]byte

func (k *tokenKey) account(name string) accountTag {
	mac := hmac.New(sha256.New, k[:])
	mac.Write([]byte("account"))
	mac.Write([]byte(name))
	return accountTag(mac.Sum(nil)[:len(accountTag{})])
}

// join makes the token that admits the second leg of session until expiry.
func (k *tokenKey) join(session control.SessionID, account accountTag, expiry time.Time) string {
	return k.seal("join", session, control.Accepter, cid.Key{}, account, uint64(expiry.Unix()))
}

// resume makes the token that admits the leg which holds key again, however
// late, after the relay has forgotten the session.
func (k *tokenKey) resume(session control.SessionID, role control.Role, key cid.Key, account accountTag) string {
	return k.seal("resume", session, role, key, account, 0)
}

func (k *tokenKey) openJoin(token string, session control.SessionID, now time.Time) (accountTag, bool) {
	expiry, account, ok := k.open("join", token, session, control.Accepter, cid.Key{})
	return account, ok && now.Unix() < int64(expiry)
}

func (k *tokenKey) openResume(token string, session control.SessionID, role control.Role, key cid.Key) (accountTag, bool) {
	_, account, ok := k.open("resume", token, session, role, key)
	return account, ok
}

func (k *tokenKey) seal(use string, session control.SessionID, role control.Role, key cid.Key, account accountTag, expiry uint64) string {
	b := make([]byte, 0, tokenLen)
	b = binary.BigEndian.AppendUint64(b, expiry)
	b = append(b, account[:]...)
	b = append(b, k.mac(use, b, session, role, key)...)
	return base64.RawURLEncoding.EncodeToString(b)
}

func (k *tokenKey) open(use, token string, session control.SessionID, role control.Role, key cid.Key) (expiry uint64, account accountTag, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) != tokenLen {
		return 0, accountTag{}, false
	}
	content, mac := b[:tokenLen-tokenMAC], b[tokenLen-tokenMAC:]
	if !hmac.Equal(mac, k.mac(use, content, session, role, key)) {
		return 0, accountTag{}, false
	}
	return binary.BigEndian.Uint64(content), accountTag(content[8:16]), true
}

func (k *tokenKey) mac(use string, content []byte, session control.SessionID, role control.Role, key cid.Key) []byte {
	mac := hmac.New(sha256.New, k[:])
	mac.Write([]byte(use))
	mac.Write([]byte{0, byte(role)})
	mac.Write(session[:])
	mac.Write(key[:])
	mac.Write(content)
	return mac.Sum(nil)[:tokenMAC]
}
