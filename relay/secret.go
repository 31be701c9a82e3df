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

// secrets are the keys of a relay, derived from [Config.Secret], so that a restarted
// relay has the same. All but reset are those of each relay with that secret.
type secrets struct {
	token      string
	tokens     tokenKey
	resets     []byte // what the keys of stateless resets are derived from
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

// resetKey is the key of the stateless resets of the relay that has a name. Relays
// that share a secret must not share this key: who has seen an ID of one could ask
// another for the packet that ends the connection (RFC 9000 §21.11).
func (s *secrets) resetKey(name string) (*quic.StatelessResetKey, error) {
	key := new(quic.StatelessResetKey)
	b, err := hkdf.Key(sha256.New, s.resets, []byte(name), "quicway relay stateless reset", len(key))
	if err != nil {
		return nil, fmt.Errorf("derive stateless reset: %w", err)
	}
	copy(key[:], b)
	return key, nil
}

// tlsConfig completes the user's configuration, or makes one with the
// relay's own identity, and asks clients for a certificate without needing
// one: it is how a peer proves that an offer is addressed to it.
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

// pinOf returns the key ID of the certificate that conf always shows, or "".
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
