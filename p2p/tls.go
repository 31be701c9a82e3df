package p2p

import (
	"crypto/tls"
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

// tlsConfig is the TLS configuration of a control connection. It verifies the relay by
// its pin, or by its name. This side shows the certificate of its identity, which
// entitles it to the offers that are addressed to it.
func (r Relay) tlsConfig(identity *Identity, refusal *tlsRefusal) *tls.Config {
	conf := &tls.Config{}
	if r.TLS != nil {
		conf = r.TLS.Clone()
	}
	conf.MinVersion = tls.VersionTLS13
	conf.NextProtos = []string{http3.NextProtoH3}
	conf.Certificates = []tls.Certificate{identity.cert}
	if conf.ServerName == "" {
		conf.ServerName = r.hostname()
	}
	if r.Pin.IsZero() {
		return conf
	}
	conf.InsecureSkipVerify = true // the pin identifies the relay
	conf.VerifyConnection = func(state tls.ConnectionState) error {
		id, err := pki.PeerKeyID(state)
		if err != nil || PeerID(id) != r.Pin {
			return refusal.set(ErrRelayMismatch)
		}
		return nil
	}
	return conf
}
