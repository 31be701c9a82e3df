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

// Key is the secret from which the IDs of one side of one connection are made. It also
// proves to the relay whose leg a request is about.
type Key [32]byte

// NewKey returns a random key.
func NewKey() Key {
	var k Key
	rand.Read(k[:])
	return k
}

// Equal says whether two keys are equal, in constant time.
func (k Key) Equal(other Key) bool { return subtle.ConstantTimeCompare(k[:], other[:]) == 1 }

// String returns a text that does not reveal the key. Use MarshalText for the text form.
func (k Key) String() string { return "[secret]" }

// MarshalText implements [encoding.TextMarshaler]: 43 characters of base64url.
func (k Key) MarshalText() ([]byte, error) {
	return base64.RawURLEncoding.AppendEncode(nil, k[:]), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler]. It returns an error that wraps
// ErrText if text is not the text form of a key.
func (k *Key) UnmarshalText(text []byte) error {
	b, err := base64.RawURLEncoding.Strict().DecodeString(string(text))
	if err != nil || len(b) != len(k) {
		return fmt.Errorf("%w: key is not 32 bytes of base64url", ErrText)
	}
	copy(k[:], b)
	return nil
}

// ID returns the ID of a counter. For many IDs a [Deriver] is faster.
func (k Key) ID(role Role, counter uint64) ID { return k.Deriver(role).ID(counter) }

// Deriver makes the IDs of one key and role without allocations. It is not safe for
// concurrent use.
type Deriver struct {
	mac  hash.Hash
	role Role
	buf  [8]byte
	sum  [Len]byte
}

// Deriver returns a Deriver for the IDs of a role.
func (k Key) Deriver(role Role) *Deriver {
	mac, err := blake2b.New(Len, k[:])
	if err != nil {
		panic(err) // only for sizes that Len and Key do not have
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
