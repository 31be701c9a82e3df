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

// accountTag stands for the name of an account: a keyed hash, so that the holder of a
// token, which contains the tag, learns nothing about the account.
type accountTag [8]byte

// A session token entitles its holder to one leg of a session:
//
//	expiry (7 bytes, Unix seconds) | joined (1) | account (8) | MAC (16)
//
// The MAC also covers the use, the session, the role and the key. So the relay need not
// remember the tokens that it has made, and they are still valid after a restart.
const (
	tokenMAC = 16
	tokenLen = 8 + 8 + tokenMAC
)

// tokenKey makes and checks session tokens.
type tokenKey [32]byte

// account returns the tag of an account.
func (k *tokenKey) account(name string) accountTag {
	mac := hmac.New(sha256.New, k[:])
	mac.Write([]byte("account"))
	mac.Write([]byte(name))
	return accountTag(mac.Sum(nil)[:len(accountTag{})])
}

// sender returns a name for the sender of an offer. The client that takes the offer can
// tell senders apart by it, and learns nothing else about them.
func (k *tokenKey) sender(from sender) string {
	mac := hmac.New(sha256.New, k[:])
	mac.Write([]byte("sender"))
	mac.Write(from.account[:])
	mac.Write([]byte(from.site.String()))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:12])
}

// join makes the token with which the accepter can register its leg until expiry.
func (k *tokenKey) join(session control.SessionID, account accountTag, expiry time.Time) string {
	return k.seal("join", session, control.Accepter, cid.Key{}, content{expiry, false, account})
}

// resume makes the token with which the holder of key can register its leg again, after
// the relay has forgotten the session.
func (k *tokenKey) resume(session control.SessionID, role control.Role, key cid.Key, c content) string {
	return k.seal("resume", session, role, key, c)
}

// openJoin checks a join token, and returns the account of its session.
func (k *tokenKey) openJoin(token string, session control.SessionID, now time.Time) (accountTag, bool) {
	c, ok := k.open("join", token, session, control.Accepter, cid.Key{})
	return c.account, ok && now.Before(c.expiry)
}

// openResume checks a resume token.
func (k *tokenKey) openResume(token string, session control.SessionID, role control.Role, key cid.Key, now time.Time) (content, bool) {
	c, ok := k.open("resume", token, session, role, key)
	return c, ok && now.Before(c.expiry)
}

// content is the content of a session token.
type content struct {
	expiry  time.Time // in whole seconds
	joined  bool      // the session's join token has been used
	account accountTag
}

func (k *tokenKey) seal(use string, session control.SessionID, role control.Role, key cid.Key, c content) string {
	b := make([]byte, 0, tokenLen)
	head := uint64(c.expiry.Unix()) << 8
	if c.joined {
		head |= 1
	}
	b = binary.BigEndian.AppendUint64(b, head)
	b = append(b, c.account[:]...)
	b = append(b, k.mac(use, b, session, role, key)...)
	return base64.RawURLEncoding.EncodeToString(b)
}

func (k *tokenKey) open(use, token string, session control.SessionID, role control.Role, key cid.Key) (content, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) != tokenLen {
		return content{}, false
	}
	said, mac := b[:tokenLen-tokenMAC], b[tokenLen-tokenMAC:]
	if !hmac.Equal(mac, k.mac(use, said, session, role, key)) {
		return content{}, false
	}
	head := binary.BigEndian.Uint64(said)
	return content{time.Unix(int64(head>>8), 0), head&1 != 0, accountTag(said[8:16])}, true
}

func (k *tokenKey) mac(use string, said []byte, session control.SessionID, role control.Role, key cid.Key) []byte {
	mac := hmac.New(sha256.New, k[:])
	mac.Write([]byte(use))
	mac.Write([]byte{0, byte(role)})
	mac.Write(session[:])
	mac.Write(key[:])
	mac.Write(said)
	return mac.Sum(nil)[:tokenMAC]
}
