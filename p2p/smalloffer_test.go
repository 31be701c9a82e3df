package p2p

import (
	"context"
	"crypto/tls"
	"testing"
)

// TestSmallOffers checks how large offers are, and that a small one is answered, also with
// Config.TLS. A QR code of 89 modules has 718 bytes. quic-go adds a transport parameter of up to 15
// random bytes, with which one in a hundred needs 93 modules.
func TestSmallOffers(t *testing.T) {
	runLab(t, func(l *lab) {
		own := func(c *Config) {
			c.SmallOffers = true
			c.TLS = &tls.Config{
				Certificates: []tls.Certificate{c.Identity.Certificate()}, InsecureSkipVerify: true,
				CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519},
			}
		}
		for _, test := range []struct {
			name     string
			change   func(*Config)
			min, max int
		}{
			{"by default", func(*Config) {}, 2000, 2500},
			{"small", func(c *Config) { c.SmallOffers = true }, 500, 730},
			{"small with Config.TLS", own, 500, 730},
		} {
			identity, err := NewIdentity()
			if err != nil {
				l.Fatal(err)
			}
			alice := l.host(func(c *Config) {
				c.Identity = identity
				test.change(c)
			})
			bob := l.host(nil)
			var size int
			conn, err := alice.Dial(l.Context(), bob.ID(), &DialConfig{Deliver: func(ctx context.Context, o Offer) error {
				size = len(o.String())
				_, err := bob.AcceptOffer(ctx, o)
				return err
			}})
			if err != nil {
				l.Fatalf("%s: %v", test.name, err)
			}
			if size < test.min || size > test.max {
				l.Errorf("%s: an offer of %d bytes, want %d to %d", test.name, size, test.min, test.max)
			}
			if group := conn.ConnectionState().TLS.CurveID; (group == tls.X25519) != (test.max == 730) {
				l.Errorf("%s: key exchange by %v", test.name, group)
			}
		}
	})
}
