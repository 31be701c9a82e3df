package p2p

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"fmt"

	"github.com/quicway/quicway/internal/pki"
)

// PeerID names a peer, or a relay: the SHA-256 of its public key's
// SubjectPublicKeyInfo. Its text form is 52 characters of lower-case base32.
// The zero PeerID names nobody.
type PeerID [32]byte

// ParsePeerID reads the text form of a PeerID, in either case. It returns
// ErrMalformedPeerID for anything else.
func ParsePeerID(s string) (PeerID, error) {
	id, err := pki.ParseKeyID(s)
	if err != nil {
		return PeerID{}, fmt.Errorf("%w: %q", ErrMalformedPeerID, s)
	}
	return PeerID(id), nil
}

// String returns the text form.
func (p PeerID) String() string { return pki.KeyID(p).String() }

// IsZero says whether p names nobody.
func (p PeerID) IsZero() bool { return p == PeerID{} }

// MarshalText implements [encoding.TextMarshaler].
func (p PeerID) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]. It returns ErrMalformedPeerID for
// what is no PeerID.
func (p *PeerID) UnmarshalText(text []byte) error {
	id, err := ParsePeerID(string(text))
	if err != nil {
		return err
	}
	*p = id
	return nil
}

// Identity is a key of one's own, with which a peer proves to others who it
// is. It is immutable.
type Identity struct {
	key  ed25519.PrivateKey
	cert tls.Certificate
	id   PeerID
}

// NewIdentity draws a new identity. Whoever wants to be known again keeps its
// [Identity.Seed].
func NewIdentity() (*Identity, error) {
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed)
	return IdentityFromSeed(seed)
}

// IdentityFromSeed returns the identity of a seed of 32 secret bytes. A seed of
// another length is an error.
func IdentityFromSeed(seed []byte) (*Identity, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("p2p: a seed has %d bytes, not %d", ed25519.SeedSize, len(seed))
	}
	key := ed25519.NewKeyFromSeed(seed)
	cert, err := pki.SelfSigned(key)
	if err != nil {
		return nil, fmt.Errorf("p2p: make identity: %w", err)
	}
	return &Identity{key: key, cert: cert, id: PeerID(pki.CertificateKeyID(cert.Leaf))}, nil
}

// Seed returns the 32 secret bytes that the identity can be made from again.
func (i *Identity) Seed() []byte { return i.key.Seed() }

// ID returns what others know this identity by.
func (i *Identity) ID() PeerID { return i.id }

// String returns the ID's text form: an identity that is printed by mistake
// reveals no secret.
func (i *Identity) String() string { return i.id.String() }

// peerOf names the key that the other side of a connection has shown.
func peerOf(state tls.ConnectionState) (PeerID, error) {
	id, err := pki.PeerKeyID(state)
	return PeerID(id), err
}
