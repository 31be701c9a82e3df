package cid

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"

	"golang.org/x/crypto/blake2b"
)

// Key makes the IDs of one side of one connection, and shows to the relay whose
// they are. It is a secret.
type Key [32]byte

// NewKey draws a key.
func NewKey() Key {
	var k Key
	rand.Read(k[:])
	return k
}

// Equal compares in constant time.
func (k Key) Equal(other Key) bool { return subtle.ConstantTimeCompare(k[:], other[:]) == 1 }

// String hides the key: use MarshalText for its text.
func (k Key) String() string { return "[secret]" }

// MarshalText implements [encoding.TextMarshaler]: 43 characters of base64url.
func (k Key) MarshalText() ([]byte, error) {
	return base64.RawURLEncoding.AppendEncode(nil, k[:]), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler]. It returns ErrText for
// what is no key.
func (k *Key) UnmarshalText(text []byte) error {
	b, err := base64.RawURLEncoding.Strict().DecodeString(string(text))
	if err != nil || len(b) != len(k) {
		return fmt.Errorf("%w: key is not 32 bytes of base64url", ErrText)
	}
	copy(k[:], b)
	return nil
}

// ID returns the ID of a counter. For many of them a [Deriver] is faster.
func (k Key) ID(role Role, counter uint64) ID { return k.Deriver(role).ID(counter) }

// Deriver makes IDs of one key without allocating. It is not safe for
// concurrent use.
type Deriver struct {
	mac  hash.Hash
	role Role
	buf  [8]byte
	sum  [Len]byte
}

// Deriver returns a deriver for IDs of a role.
func (k Key) Deriver(role Role) *Deriver {
	mac, err := blake2b.New(Len, k[:])
	if err != nil {
		panic(err) // only for sizes that the constants above exclude
	}
	return &Deriver{mac: mac, role: role}
}

// ID returns the ID of a counter.
func (d *Deriver) ID(counter uint64) ID {
	binary.BigEndian.PutUint64(d.buf[:], counter)
	d.mac.Reset()
	d.mac.Write(d.buf[:])
	d.mac.Sum(d.sum[:0])
	id := ID{n: Len}
	copy(id.b[:], d.sum[:])
	id.b[0] = id.b[0]&^roleBit | byte(d.role)<<7
	return id
}
