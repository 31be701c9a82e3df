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

// secrets are the keys of a relay, each derived from [Config.Secret] alone, so
// that a restarted relay has the same.
type secrets struct {
	token      string
	tokens     tokenKey
	reset      quic.StatelessResetKey
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
		"access token":    token[:],
		"session tokens":  s.tokens[:],
		"stateless reset": s.reset[:],
		"address tokens":  s.validation[:],
		"identity":        seed,
	} {
		b, err := hkdf.Key(sha256.New, secret, nil, "quicway relay "+label, len(out))
		if err != nil {
			return nil, fmt.Errorf("derive %s: %w", label, err)
		}
		copy(out, b)
	}
	s.token = base64.RawURLEncoding.EncodeToString(token[:])
	s.identity = ed25519.NewKeyFromSeed(seed)
	return &s, nil
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
