package p2p

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/quicway/quicway/internal/pki"
)

// PeerID identifies a peer or a relay. It is the SHA-256 hash of the public key's
// SubjectPublicKeyInfo (RFC 5280 §4.1), as in the pins of RFC 7469. Its text form is 52
// characters of lower-case base32. The zero PeerID means no peer.
//
// There is one such hash, whatever it is used for: the ID of a peer, and the pin of a relay
// ([Relay.Pin]). It comes from an [Identity] by [Identity.ID], from a certificate by
// [PeerIDOf], from a text, as package relay has pins, by [ParsePeerID], and together with the
// address of a relay by [ParseRelay].
type PeerID [32]byte

// PeerIDOf returns the ID of the key in a certificate: that of a peer that shows the
// certificate, or the pin of a relay that does.
func PeerIDOf(cert *x509.Certificate) PeerID { return PeerID(pki.CertificateKeyID(cert)) }

// ParsePeerID reads the text form of a PeerID, in lower or upper case. For any other text
// it returns an error that wraps ErrMalformedPeerID.
func ParsePeerID(s string) (PeerID, error) {
	id, err := pki.ParseKeyID(s)
	if err != nil {
		return PeerID{}, fmt.Errorf("%w: %q", ErrMalformedPeerID, s)
	}
	return PeerID(id), nil
}

// String returns the text form.
func (p PeerID) String() string { return pki.KeyID(p).String() }

// IsZero says whether p is the zero PeerID.
func (p PeerID) IsZero() bool { return p == PeerID{} }

// MarshalText implements [encoding.TextMarshaler].
func (p PeerID) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]. See [ParsePeerID].
func (p *PeerID) UnmarshalText(text []byte) error {
	id, err := ParsePeerID(string(text))
	if err != nil {
		return err
	}
	*p = id
	return nil
}

// Identity is a private key (Ed25519), by which an endpoint proves its [PeerID]. It is
// immutable. To have the same PeerID again later, use [LoadOrCreateIdentity].
type Identity struct {
	key  ed25519.PrivateKey
	cert tls.Certificate
	id   PeerID
}

// NewIdentity generates an identity. To use it again later, keep it in a file
// ([Identity.Save]), or keep its [Identity.Seed].
func NewIdentity() (*Identity, error) {
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed)
	return IdentityFromSeed(seed)
}

// IdentityFromSeed returns the identity with a seed of 32 bytes. Any other length is an
// error.
func IdentityFromSeed(seed []byte) (*Identity, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("p2p: seed of %d bytes, want %d", len(seed), ed25519.SeedSize)
	}
	key := ed25519.NewKeyFromSeed(seed)
	cert, err := pki.SelfSigned(key)
	if err != nil {
		return nil, fmt.Errorf("p2p: make identity: %w", err)
	}
	return &Identity{key: key, cert: cert, id: PeerIDOf(cert.Leaf)}, nil
}

// Seed returns the 32 secret bytes from which [IdentityFromSeed] makes the identity.
func (i *Identity) Seed() []byte { return i.key.Seed() }

// Certificate returns a self-signed certificate with the identity's private key. Whoever
// shows it in TLS proves the identity's ID: an endpoint with a [Config.TLS], a relay, which
// then has the ID as its pin, or any other server. It is valid from 2020 to 9999. The caller
// must not change what it refers to.
func (i *Identity) Certificate() tls.Certificate { return i.cert }

// ID returns the ID by which peers know this identity.
func (i *Identity) ID() PeerID { return i.id }

// String returns the text form of the ID, so that printing an identity reveals no secret.
func (i *Identity) String() string { return i.id.String() }

// peerOf returns the ID of the key in the other side's certificate.
func peerOf(state tls.ConnectionState) (PeerID, error) {
	id, err := pki.PeerKeyID(state)
	return PeerID(id), err
}
