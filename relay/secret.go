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
	tokens     tokenRing
	resets     []byte // the keys of stateless resets are derived from it
	validation quic.TokenGeneratorKey
	identity   ed25519.PrivateKey

	// What clients may still have from the old secrets, in their order, and from the next one.
	oldTokens     []string
	oldIdentities []ed25519.PrivateKey
}

// deriveSecrets derives the keys from the secret of a relay, and from those that it had
// before. A nil secret is drawn at random.
func deriveSecrets(secret []byte, old ...[]byte) (*secrets, error) {
	if secret == nil {
		secret = make([]byte, minSecret)
		rand.Read(secret)
	}
	keys, err := deriveKeys(secret)
	if err != nil {
		return nil, err
	}
	s := &secrets{token: keys.token, resets: secret, validation: keys.validation, identity: keys.identity}
	s.tokens.tokenKey = keys.tokens
	for _, o := range old {
		keys, err := s.accept(o)
		if err != nil {
			return nil, err
		}
		s.oldIdentities = append(s.oldIdentities, keys.identity)
	}
	return s, nil
}

// accept has the relay accept what was made with another secret. The key of that secret
// vouches for nothing: if it did for the present key, and the present secret has been
// stolen, the thief could show the certificate to clients that know only the next key.
func (s *secrets) accept(secret []byte) (*derivedKeys, error) {
	keys, err := deriveKeys(secret)
	if err != nil {
		return nil, err
	}
	s.tokens.old = append(s.tokens.old, keys.tokens)
	s.oldTokens = append(s.oldTokens, keys.token)
	return keys, nil
}

// derivedKeys are the keys that are derived from one secret.
type derivedKeys struct {
	token      string // the access token
	tokens     tokenKey
	validation quic.TokenGeneratorKey
	identity   ed25519.PrivateKey
}

func deriveKeys(secret []byte) (*derivedKeys, error) {
	var k derivedKeys
	var token [24]byte
	seed := make([]byte, ed25519.SeedSize)
	for label, out := range map[string][]byte{
		"access token":      token[:],
		"session tokens":    k.tokens.secret[:],
		"session token key": k.tokens.id[:],
		"address tokens":    k.validation[:],
		"identity":          seed,
	} {
		b, err := hkdf.Key(sha256.New, secret, nil, "quicway relay "+label, len(out))
		if err != nil {
			return nil, fmt.Errorf("derive %s: %w", label, err)
		}
		copy(out, b)
	}
	k.token = base64.RawURLEncoding.EncodeToString(token[:])
	k.identity = ed25519.NewKeyFromSeed(seed)
	return &k, nil
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

// resetName is the name by which the keys of resets differ: that of the configuration, or
// else one that is made of the host's name and addresses. Those never begin with two zero
// bytes.
func resetName(conf *Config, s *sockets) string {
	if conf.Name == "" {
		return s.instance()
	}
	return "\x00\x00" + conf.Name
}

// tlsConfig completes the user's configuration, or makes one with the relay's own key,
// which the keys of the old secrets vouch for. It asks clients for a certificate, by which
// a peer proves that an offer is addressed to its key, but does not require one.
func (s *secrets) tlsConfig(user *tls.Config) (*tls.Config, error) {
	if user == nil {
		cert, err := pki.Vouched(s.identity, s.oldIdentities...)
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
