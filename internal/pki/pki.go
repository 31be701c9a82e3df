// Package pki makes TLS identities for peers and relays that need no certificate authority:
// self-signed Ed25519 certificates, which are identified by the hash of their public key.
package pki

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base32"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// ErrNoCertificate is returned by PeerKeyID if the other side of a TLS connection has not
// sent a certificate.
var ErrNoCertificate = errors.New("the other side has sent no certificate")

// ErrKeyID is returned by ParseKeyID for text that is not a key ID.
var ErrKeyID = errors.New("not a key ID: want 52 characters of base32")

// KeyID identifies a public key: it is the SHA-256 of the key's SubjectPublicKeyInfo
// (RFC 5280 §4.1.2.7), as in the pins of RFC 7469.
type KeyID [sha256.Size]byte

// encoding is base32 in lower case, which may be part of a host name or a file name.
var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// String returns k as 52 characters of lower-case base32.
func (k KeyID) String() string { return encoding.EncodeToString(k[:]) }

// ParseKeyID parses the text form that [KeyID.String] returns, in lower or upper case. It
// returns ErrKeyID for any other text.
func ParseKeyID(s string) (KeyID, error) {
	var k KeyID
	b, err := encoding.DecodeString(strings.ToLower(s))
	if err != nil || len(b) != len(k) {
		return KeyID{}, ErrKeyID
	}
	copy(k[:], b)
	// The last character has unused bits, which must be zero.
	if k.String() != strings.ToLower(s) {
		return KeyID{}, ErrKeyID
	}
	return k, nil
}

// CertificateKeyID returns the KeyID of a certificate's public key.
func CertificateKeyID(cert *x509.Certificate) KeyID {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// PeerKeyID returns the KeyID of the certificate that the other side of a connection has
// sent, or ErrNoCertificate if it has sent none.
func PeerKeyID(state tls.ConnectionState) (KeyID, error) {
	if len(state.PeerCertificates) == 0 {
		return KeyID{}, ErrNoCertificate
	}
	return CertificateKeyID(state.PeerCertificates[0]), nil
}

// SelfSigned makes a certificate for key. It is valid from 2020 to 9999, because peers trust
// the key, not the certificate, and their clocks may be wrong.
func SelfSigned(key ed25519.PrivateKey) (tls.Certificate, error) { return Vouched(key) }

// Vouched makes a certificate for key, like SelfSigned, for which other keys vouch: the first
// of them has signed the certificate, the second one a certificate for the first, and so on.
// So a client that knows one of these keys accepts this one ([Pinned]).
func Vouched(key ed25519.PrivateKey, by ...ed25519.PrivateKey) (tls.Certificate, error) {
	keys := append([]ed25519.PrivateKey{key}, by...)
	chain := make([][]byte, len(keys))
	var signed *x509.Certificate // the certificate of the key that signs the next one
	for i := len(keys) - 1; i >= 0; i-- {
		signer := keys[min(i+1, len(keys)-1)]
		cert, err := certify(keys[i].Public(), i > 0, signed, signer)
		if err != nil {
			return tls.Certificate{}, err
		}
		chain[i], signed = cert.Raw, cert
	}
	return tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: signed}, nil
}

// certify makes a certificate for a public key. issuer is the certificate of the signer's
// key; nil: the certificate signs itself. vouches says that the key may sign others.
func certify(key crypto.PublicKey, vouches bool, issuer *x509.Certificate, signer ed25519.PrivateKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("draw serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 §4.1.2.5: no expiry
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if vouches {
		template.KeyUsage, template.IsCA, template.BasicConstraintsValid = x509.KeyUsageCertSign, true, true
	}
	if issuer == nil {
		issuer = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key, signer)
	if err != nil {
		return nil, fmt.Errorf("create certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	return cert, nil
}

// maxVouching bounds the keys of a chain that Pinned looks at.
const maxVouching = 10

// Pinned says whether the other side of a connection has the key with an ID, or a key that
// this one vouches for ([Vouched]).
func Pinned(state tls.ConnectionState, pin KeyID) bool {
	chain := state.PeerCertificates
	chain = chain[:min(len(chain), maxVouching)]
	for i, cert := range chain {
		if CertificateKeyID(cert) == pin {
			return true
		}
		if i+1 == len(chain) || cert.CheckSignatureFrom(chain[i+1]) != nil {
			return false
		}
	}
	return false
}
