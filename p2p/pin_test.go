package p2p

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"

	"github.com/quicway/quicway/relay"
)

// TestRelayURL checks that the URL of a server has all that a peer needs, and that its pin is
// the ID of its key.
func TestRelayURL(t *testing.T) {
	runLab(t, func(l *lab) {
		got, err := ParseRelay(l.server.URL(""))
		if err != nil || got != l.relay() {
			l.Errorf("got %v, %v, want %v", got, err, l.relay())
		}
		if got.String() != l.server.URL("") {
			l.Errorf("got %s, want %s", got, l.server.URL(""))
		}
	})
}

// TestIdentityOfRelay checks that a relay with the certificate of an identity has the
// identity's ID as its pin.
func TestIdentityOfRelay(t *testing.T) {
	runLab(t, func(l *lab) {
		identity, err := NewIdentity()
		if err != nil {
			l.Fatal(err)
		}
		server, served := l.serveWith("192.0.2.9:4433", &relay.Config{
			Secret: relaySecret, TLS: &tls.Config{Certificates: []tls.Certificate{identity.Certificate()}},
		})
		if server.Pin() != identity.String() {
			l.Errorf("got the pin %s, want %v", server.Pin(), identity)
		}
		at, err := ParseRelay(server.URL(""))
		if err != nil {
			l.Fatal(err)
		}
		there := func(c *Config) { c.Relay = at }
		l.connect(l.host(there), l.host(there))
		l.unserve(server, served)
	})
}

// TestWrongPinIsShown checks that the error of a relay with another key has both pins, and
// with no pin the one that would do.
func TestWrongPinIsShown(t *testing.T) {
	runLab(t, func(l *lab) {
		for name, pin := range map[string]PeerID{"another": bobID, "none": {}} {
			h := l.host(func(c *Config) { c.Relay.Pin = pin })
			_, err := h.Dial(l.Context(), carolID, nil)
			want := []string{l.server.Pin(), relayAddr}
			if !pin.IsZero() {
				want = append(want, pin.String())
			}
			for _, part := range want {
				if !errors.Is(err, ErrRelayMismatch) || strings.Count(err.Error(), part) != 1 {
					l.Errorf("%s: got %v, which should have %s once", name, err, part)
				}
			}
		}
		if got := (Relay{Addr: relayAddr}).mismatch([]*x509.Certificate(nil)); !errors.Is(got, ErrRelayMismatch) {
			l.Errorf("no certificate: got %v", got)
		}
	})
}

// TestKeyLog checks that the secrets of connections to the peer and to the relay are written,
// that the peers' proof stays, and that the writer of Config.TLS comes first.
func TestKeyLog(t *testing.T) {
	runLab(t, func(l *lab) {
		identity, err := NewIdentity()
		if err != nil {
			l.Fatal(err)
		}
		var alices, bobs, own lockedBuffer
		alice := l.host(func(c *Config) { c.KeyLogWriter = &alices })
		bob := l.host(func(c *Config) {
			c.Identity, c.KeyLogWriter = identity, &bobs
			c.TLS = &tls.Config{
				Certificates: []tls.Certificate{identity.Certificate()}, ClientAuth: tls.RequireAnyClientCert, KeyLogWriter: &own,
			}
		})
		l.connect(alice, bob) // checks the IDs
		if c, err := alice.Dial(l.Context(), carolID, &DialConfig{Deliver: func(ctx context.Context, o Offer) error {
			_, err := bob.AcceptOffer(ctx, o)
			return err
		}}); !errors.Is(err, ErrPeerMismatch) {
			l.Errorf("another peer: got %v, %v", c, err)
		}
		for _, log := range []struct {
			name        string
			out         *lockedBuffer
			connections int
		}{{"dialer", &alices, 2}, {"accepter", &bobs, 1}, {"Config.TLS", &own, 1}} {
			log.out.mu.Lock()
			if got := strings.Count(log.out.out.String(), "CLIENT_TRAFFIC_SECRET_0 "); got < log.connections {
				l.Errorf("%s: the secrets of %d connections, want %d", log.name, got, log.connections)
			}
			log.out.mu.Unlock()
		}
	})
}
