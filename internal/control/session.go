package control

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
)

// SessionID identifies a session. The dialer draws it at random, so that nobody else can guess
// it.
type SessionID [16]byte

// NewSessionID returns a random session ID.
func NewSessionID() SessionID {
	var s SessionID
	rand.Read(s[:])
	return s
}

// String returns the ID as 22 characters of base64url.
func (s SessionID) String() string { return base64.RawURLEncoding.EncodeToString(s[:]) }

// MarshalText implements [encoding.TextMarshaler].
func (s SessionID) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *SessionID) UnmarshalText(text []byte) error {
	b, err := base64.RawURLEncoding.Strict().DecodeString(string(text))
	if err != nil || len(b) != len(s) {
		return fmt.Errorf("%w: session is not 16 bytes of base64url", ErrBody)
	}
	copy(s[:], b)
	return nil
}

// Role is an end of a session. Its value is the index of the leg.
type Role uint8

// The two ends of a session.
const (
	Dialer   Role = 0
	Accepter Role = 1
)

// Peer returns the other role.
func (r Role) Peer() Role { return r ^ 1 }

// String returns the name in messages: "dialer" or "accepter".
func (r Role) String() string {
	switch r {
	case Dialer:
		return "dialer"
	case Accepter:
		return "accepter"
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// MarshalText implements [encoding.TextMarshaler].
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (r *Role) UnmarshalText(text []byte) error {
	switch string(text) {
	case "dialer":
		*r = Dialer
	case "accepter":
		*r = Accepter
	default:
		return fmt.Errorf("%w: role is neither dialer nor accepter", ErrBody)
	}
	return nil
}
