package relay

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/pki"
)

// secrets are the keys of a relay, derived from [Config.Secret], so that they are the same
// after a restart. Relays with the same Secret have the same keys, except for that of
// stateless resets.
type secrets struct {
	token      string
	tokens     tokenKey
	resets     []byte // the keys of stateless resets are derived from it
	validation quic.TokenGeneratorKey
	identity   ed25519.PrivateKey
}

func deriveSecrets(secret []byte) (*secrets, error) {
	if secret == nil {
		secret = make([]byte, minSecret)
		rand.Read(secret)
	}
	var s secrets
	var token [24]byte
	seed := make([]byte, ed25519.SeedSize)
	for label, out := range map[string][]byte{
		"access token":   token[:],
		"session tokens": s.tokens[:],
		"address tokens": s.validation[:],
		"identity":       seed,
	} {
		b, err := hkdf.Key(sha256.New, secret, nil, "quicway relay "+label, len(out))
		if err != nil {
			return nil, fmt.Errorf("derive %s: %w", label, err)
		}
		copy(out, b)
	}
	s.resets = secret
	s.token = base64.RawURLEncoding.EncodeToString(token[:])
	s.identity = ed25519.NewKeyFromSeed(seed)
	return &s, nil
}

// resetKey derives the key of stateless resets for the relay with a name. Relays with the
// same Secret must not have the same key of resets: an attacker that has seen a connection
// ID of one relay could get the reset that ends the connection from another relay
// (RFC 9000 §21.11).
func (s *secrets) resetKey(name string) (*quic.StatelessResetKey, error) {
	key := new(quic.StatelessResetKey)
	b, err := hkdf.Key(sha256.New, s.resets, []byte(name), "quicway relay stateless reset", len(key))
	if err != nil {
		return nil, fmt.Errorf("derive stateless reset: %w", err)
	}
	copy(key[:], b)
	return key, nil
}

// tlsConfig completes the user's configuration, or makes one with the relay's own key. It
// asks clients for a certificate, by which a peer proves that an offer is addressed to its
// key, but does not require one.
func (s *secrets) tlsConfig(user *tls.Config) (*tls.Config, error) {
	if user == nil {
		cert, err := pki.SelfSigned(s.identity)
		if err != nil {
			return nil, err
		}
		user = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	conf := user.Clone()
	conf.ClientAuth = tls.RequestClientCert
	conf.MinVersion = tls.VersionTLS13
	return conf, nil
}

// pinOf returns the key ID of the certificate in conf, or "" if it does not have exactly
// one.
func pinOf(conf *tls.Config) string {
	if len(conf.Certificates) != 1 || len(conf.Certificates[0].Certificate) == 0 {
		return ""
	}
	leaf, err := x509.ParseCertificate(conf.Certificates[0].Certificate[0])
	if err != nil {
		return ""
	}
	return pki.CertificateKeyID(leaf).String()
}
