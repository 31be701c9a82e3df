package cid

import (
	"encoding/hex"
	"fmt"
)

// Lengths of IDs in bytes.
const (
	// Len is the length of the IDs that this package makes.
	Len = 12
	// MaxLen is the largest length of an ID in QUIC version 1 (RFC 9000 §17.2).
	MaxLen = 20
)

// Role says which connections an ID is for.
type Role uint8

// The roles. Their values are bit 7 of an ID's first byte.
const (
	Peer  Role = 0 // connections between two peers
	Relay Role = 1 // control connections, between a peer and the relay
)

// roleBit is the bit of the first byte that holds the role.
const roleBit = 0x80

// String returns "peer" or "relay".
func (r Role) String() string {
	if r == Relay {
		return "relay"
	}
	return "peer"
}

// RoleOf returns the role that is marked in an ID of this package. For other IDs, such as
// the random first ID of a client, the result means nothing. The role of an empty ID is
// Peer.
func RoleOf(id []byte) Role {
	if len(id) == 0 {
		return Peer
	}
	return Role(id[0] >> 7)
}

// ID is a connection ID of 0 to 20 bytes. IDs can be compared with ==, and used as keys of
// maps. The zero ID is the empty one.
type ID struct {
	b [MaxLen]byte
	n uint8
}

// IDFrom returns the ID with the bytes of b, which it copies. It returns an error that wraps
// ErrLength if b has more than [MaxLen] bytes.
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

// Role returns [RoleOf] the bytes of the ID.
func (id ID) Role() Role { return RoleOf(id.b[:id.n]) }

// AppendTo appends the bytes of the ID to b.
func (id ID) AppendTo(b []byte) []byte { return append(b, id.b[:id.n]...) }

// Bytes returns a copy of the bytes of the ID.
func (id ID) Bytes() []byte { return id.AppendTo(nil) }

// String returns the ID in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id.b[:id.n]) }

// MarshalText implements [encoding.TextMarshaler]: the ID in hexadecimal.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]. It returns an error that wraps
// ErrText or ErrLength if text is not an ID in hexadecimal.
func (id *ID) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil {
		return fmt.Errorf("%w: connection ID is not hexadecimal", ErrText)
	}
	*id, err = IDFrom(b)
	return err
}
