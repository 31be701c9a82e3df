package relay

import (
	"bytes"
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

// A session token entitles its holder to one leg of a session. There are two versions. The
// relay makes tokens of version 2, and also accepts those of version 1, which earlier
// relays have made:
//
//	1: expiry (7 bytes, Unix seconds) | flags (1) | account (8) | MAC (16)
//	2: 2 (1 byte) | key (4) | opened (4, Unix seconds) |
//	   expiry (7, Unix seconds) | flags (1) | account (8) | MAC (16)
//
// Key names the secret that the MAC's key is derived from. The MAC also covers the use, the
// session, the role and the leg's key. So the relay need not remember the tokens that it
// has made, and they are still valid after a restart, and at other relays with the secret.
const (
	tokenMAC     = 16
	tokenContent = 8 + 8 // expiry, flags and account
	tokenHead    = 1 + keyIDLen + 4
	tokenLen1    = tokenContent + tokenMAC
	tokenLen2    = tokenHead + tokenContent + tokenMAC
	tokenVersion = 2
)

// Flags of a session token.
const (
	flagJoined = 1 << 0
	claimShift = 1 // two bits
)

// keyIDLen is the length of a token key's ID. Of several keys with the same ID each is
// tried, so it need not be long.
const keyIDLen = 4

// content is the content of a session token.
type content struct {
	expiry  time.Time // in whole seconds
	joined  bool      // the session's join token has been used
	account accountTag
	claim   claim     // of a resume token's leg
	opened  time.Time // when the session was first opened, in whole seconds; zero: not known
}

// tokenKey makes and checks session tokens.
type tokenKey struct {
	secret [32]byte
	id     [keyIDLen]byte
}

// account returns the tag of an account.
func (k *tokenKey) account(name string) accountTag {
	mac := hmac.New(sha256.New, k.secret[:])
	mac.Write([]byte("account"))
	mac.Write([]byte(name))
	return accountTag(mac.Sum(nil)[:len(accountTag{})])
}

// sender returns a name for the sender of an offer. The client that takes the offer can
// tell senders apart by it, and learns nothing else about them.
func (k *tokenKey) sender(from sender) string {
	mac := hmac.New(sha256.New, k.secret[:])
	mac.Write([]byte("sender"))
	mac.Write(from.account[:])
	mac.Write([]byte(from.site.String()))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:12])
}

// grant is what a session token is about: one leg, for one use.
type grant struct {
	use     string
	session control.SessionID
	role    control.Role
	key     cid.Key // zero for a join token
}

// joinGrant is that of the token with which the accepter can register its leg.
func joinGrant(session control.SessionID) grant {
	return grant{use: "join", session: session, role: control.Accepter}
}

// resumeGrant is that of the token with which the holder of key can register its leg
// again, after the relay has forgotten the session, or at another relay.
func resumeGrant(session control.SessionID, role control.Role, key cid.Key) grant {
	return grant{"resume", session, role, key}
}

// seal makes a token.
func (k *tokenKey) seal(g grant, c content) string {
	b := make([]byte, 0, tokenLen2)
	b = append(b, tokenVersion)
	b = append(b, k.id[:]...)
	b = binary.BigEndian.AppendUint32(b, unixSeconds(c.opened))
	head := uint64(c.expiry.Unix())<<8 | uint64(c.claim)<<claimShift
	if c.joined {
		head |= flagJoined
	}
	b = binary.BigEndian.AppendUint64(b, head)
	b = append(b, c.account[:]...)
	b = append(b, k.mac(g, b)...)
	return base64.RawURLEncoding.EncodeToString(b)
}

// open checks the decoded bytes of a token of either version. It does not check the
// expiry.
func (k *tokenKey) open(g grant, b []byte) (content, bool) {
	said, mac := b[:len(b)-tokenMAC], b[len(b)-tokenMAC:]
	if !hmac.Equal(mac, k.mac(g, said)) {
		return content{}, false
	}
	var c content
	if len(b) == tokenLen2 {
		c.opened = fromUnixSeconds(binary.BigEndian.Uint32(said[1+keyIDLen:]))
		said = said[tokenHead:]
	}
	head := binary.BigEndian.Uint64(said)
	c.expiry = time.Unix(int64(head>>8), 0)
	c.joined = head&flagJoined != 0
	c.claim = claim(head>>claimShift) & claimMask
	c.account = accountTag(said[8:tokenContent])
	return c, true
}

func (k *tokenKey) mac(g grant, said []byte) []byte {
	mac := hmac.New(sha256.New, k.secret[:])
	mac.Write([]byte(g.use))
	mac.Write([]byte{0, byte(g.role)})
	mac.Write(g.session[:])
	mac.Write(g.key[:])
	mac.Write(said)
	return mac.Sum(nil)[:tokenMAC]
}

// unixSeconds is a time in four bytes, which last until 2106. The zero time is 0.
func unixSeconds(t time.Time) uint32 {
	if t.IsZero() {
		return 0
	}
	return uint32(t.Unix())
}

func fromUnixSeconds(s uint32) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(int64(s), 0)
}

// names says whether the decoded bytes of a token name this key, or do not name a key.
func (k *tokenKey) names(b []byte) bool {
	return len(b) == tokenLen1 || bytes.Equal(b[1:1+keyIDLen], k.id[:])
}
