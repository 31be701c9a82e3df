package p2p

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync"

	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/pki"
)

// tlsRefusal is the reason why this side has refused the certificate of the other.
// quic-go only says that the TLS handshake has failed.
type tlsRefusal struct {
	mu  sync.Mutex // guards err
	err error
}

// set stores the reason, and returns it.
func (r *tlsRefusal) set(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
	return err
}

// get returns the reason, or nil if this side has not refused.
func (r *tlsRefusal) get() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// peerTLS is the TLS configuration between peers. check decides about the other side's
// ID. With [Config.TLS] it is asked only if the other side has shown a certificate.
func (c *Config) peerTLS(server bool, check func(PeerID) error) *tls.Config {
	conf := &tls.Config{
		Certificates:       []tls.Certificate{c.Identity.cert},
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: !server, // check verifies the key
		ServerName:         "peer.quicway.invalid",
	}
	if c.TLS != nil {
		conf = c.TLS.Clone()
	}
	c.completeTLS(conf, check)
	if get := conf.GetConfigForClient; get != nil {
		conf.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := get(hello)
			if chosen == nil || err != nil {
				return nil, err
			}
			chosen = chosen.Clone()
			c.completeTLS(chosen, check)
			return chosen, nil
		}
	}
	return conf
}

// completeTLS adds what all TLS configurations between peers have in common.
func (c *Config) completeTLS(conf *tls.Config, check func(PeerID) error) {
	if conf.NextProtos == nil {
		conf.NextProtos = []string{ALPN}
	}
	conf.MinVersion = tls.VersionTLS13
	c.logKeys(conf)
	verify := conf.VerifyConnection
	conf.VerifyConnection = func(state tls.ConnectionState) error {
		if verify != nil {
			if err := verify(state); err != nil {
				return err
			}
		}
		if c.TLS != nil && c.AllowPeer == nil && len(state.PeerCertificates) == 0 {
			return nil // Config.TLS allows peers without a certificate
		}
		id, err := peerOf(state)
		if err != nil {
			return err
		}
		return check(id)
	}
}

// relayTLS is the TLS configuration of a control connection. It verifies the relay by
// its pin, or by its name. This side shows the certificate of its identity, which
// entitles it to the offers that are addressed to it.
func (c *Config) relayTLS(r Relay, refusal *tlsRefusal) *tls.Config {
	conf := &tls.Config{}
	if r.TLS != nil {
		conf = r.TLS.Clone()
	}
	c.logKeys(conf)
	conf.MinVersion = tls.VersionTLS13
	conf.NextProtos = []string{http3.NextProtoH3}
	conf.Certificates = []tls.Certificate{c.Identity.cert}
	if conf.ServerName == "" {
		conf.ServerName = r.hostname()
	}
	if r.Pin.IsZero() {
		return conf
	}
	conf.InsecureSkipVerify = true // the pin identifies the relay
	conf.VerifyConnection = func(state tls.ConnectionState) error {
		if !pki.Pinned(state, pki.KeyID(r.Pin)) {
			return refusal.set(r.mismatch(state.PeerCertificates))
		}
		return nil
	}
	return conf
}

// mismatch is the error about a relay that has not the key of the pin.
func (r Relay) mismatch(shown []*x509.Certificate) error {
	if len(shown) == 0 {
		return fmt.Errorf("%w: %s shows no key, want the one with the pin %v", ErrRelayMismatch, r.Addr, r.Pin)
	}
	return fmt.Errorf("%w: %s shows a key with the pin %v, want %v", ErrRelayMismatch, r.Addr, PeerIDOf(shown[0]), r.Pin)
}

// untrusted is the error about a relay whose certificate is not verified by an authority.
func (r Relay) untrusted(err *tls.CertificateVerificationError) error {
	pin := "no"
	if len(err.UnverifiedCertificates) > 0 {
		pin = PeerIDOf(err.UnverifiedCertificates[0]).String()
	}
	return fmt.Errorf("%w: %s shows a key with the pin %s, no pin is set, and the certificate is not trusted: %w", ErrRelayMismatch, r.Addr, pin, err.Err)
}

// logKeys makes a TLS configuration write its keys to KeyLogWriter, unless it writes them
// elsewhere.
func (c *Config) logKeys(conf *tls.Config) {
	if conf.KeyLogWriter == nil {
		conf.KeyLogWriter = c.KeyLogWriter
	}
}
