package cid

import (
	"encoding/hex"
	"fmt"
)

// Lengths of IDs in bytes.
const (
	// Len is the length of the IDs that this package makes.
	Len = 12
	// MaxLen is the length of the longest IDs of QUIC (RFC 9000 §17.2).
	MaxLen = 20
)

// Role says between whom an ID is used.
type Role uint8

// The roles. Their values are bit 7 of an ID's first byte.
const (
	Peer  Role = 0 // between two peers
	Relay Role = 1 // between a peer and the relay itself
)

// roleBit is where a generated ID has its role.
const roleBit = 0x80

// String returns the role in one word.
func (r Role) String() string {
	if r == Relay {
		return "relay"
	}
	return "peer"
}

// RoleOf returns the role that a generated ID is marked with. Of an ID that
// somebody else has made, as the first one that a client draws, it says
// nothing. The role of an empty ID is Peer.
func RoleOf(id []byte) Role {
	if len(id) == 0 {
		return Peer
	}
	return Role(id[0] >> 7)
}

// ID is a connection ID of 0 to 20 bytes. It is a value: comparable, and a key
// of maps. The zero ID is the empty one.
type ID struct {
	b [MaxLen]byte
	n uint8
}

// IDFrom copies an ID from bytes. It returns ErrLength if they are too many.
func IDFrom(b []byte) (ID, error) {
	if len(b) > MaxLen {
		return ID{}, fmt.Errorf("%w: %d", ErrLength, len(b))
	}
	id := ID{n: uint8(len(b))}
	copy(id.b[:], b)
	return id, nil
}

// Len returns the length in bytes.
func (id ID) Len() int { return int(id.n) }

// IsZero says whether the ID is empty.
func (id ID) IsZero() bool { return id.n == 0 }

// Role is [RoleOf] the ID.
func (id ID) Role() Role { return RoleOf(id.b[:id.n]) }

// AppendTo appends the bytes of the ID to b.
func (id ID) AppendTo(b []byte) []byte { return append(b, id.b[:id.n]...) }

// Bytes returns the bytes of the ID in memory of their own.
func (id ID) Bytes() []byte { return id.AppendTo(nil) }

// String returns the ID in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id.b[:id.n]) }

// MarshalText implements [encoding.TextMarshaler].
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]. It returns ErrText or
// ErrLength for what is no ID.
func (id *ID) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil {
		return fmt.Errorf("%w: connection ID is not hexadecimal", ErrText)
	}
	*id, err = IDFrom(b)
	return err
}
