package control

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/quicway/quicway/cid"
)

// ownJoin begins a join token that a dialer has made. The tokens of relays do not contain
// a point.
const ownJoin = "leg."

// JoinToken is a join token that the dialer of a session makes from the key of its leg,
// so that its offer is complete before the relay has answered. The relay knows the key
// when the leg is registered. Nobody else can make the token, and it does not reveal the
// key.
func JoinToken(key cid.Key, session SessionID) string {
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte("quicway join"))
	mac.Write(session[:])
	return ownJoin + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

// IsJoinToken says whether a token is meant to be a [JoinToken].
func IsJoinToken(token string) bool { return strings.HasPrefix(token, ownJoin) }
