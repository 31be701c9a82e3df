package relay

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestURL checks the host, the port and the parts of a server's URL.
func TestURL(t *testing.T) {
	secret := make([]byte, 32)
	refuse := func(context.Context, AuthRequest) (string, error) { return "", ErrClosed }
	for _, test := range []struct {
		name, at, host string
		conf           Config
		want           string // TOKEN and PIN are the server's
	}{
		{"by address", "192.0.2.1:4433", "", Config{}, "quicway://TOKEN@192.0.2.1:4433?pin=PIN"},
		{"by name", "192.0.2.1:4433", "relay.example.org", Config{}, "quicway://TOKEN@relay.example.org:4433?pin=PIN"},
		{"by name and port", "192.0.2.1:4433", "relay.example.org:443", Config{}, "quicway://TOKEN@relay.example.org:443?pin=PIN"},
		{"by IPv6", "192.0.2.1:4433", "2001:db8::1", Config{}, "quicway://TOKEN@[2001:db8::1]:4433?pin=PIN"},
		{"by IPv6 in brackets", "192.0.2.1:4433", "[2001:db8::1]", Config{}, "quicway://TOKEN@[2001:db8::1]:4433?pin=PIN"},
		{"by IPv6 and port", "192.0.2.1:4433", "[2001:db8::1]:1", Config{}, "quicway://TOKEN@[2001:db8::1]:1?pin=PIN"},
		{"with an empty port", "192.0.2.1:4433", "relay.example.org:", Config{}, "quicway://TOKEN@relay.example.org:4433?pin=PIN"},
		{"by IPv6 with an empty port", "192.0.2.1:4433", "[2001:db8::1]:", Config{}, "quicway://TOKEN@[2001:db8::1]:4433?pin=PIN"},
		{"advertised", "192.0.2.1:4433", "", Config{Advertise: "a.example:1"}, "quicway://TOKEN@a.example:1?pin=PIN"},
		{"all parts", "192.0.2.1:4433", "h", Config{Zone: "eu & us", TunnelPort: 443, Token: "a b"}, "quicway://a%20b@h:4433?pin=PIN&tunnel=443&zone=eu+%26+us"},
		{"accounts", "192.0.2.1:4433", "h", Config{Authorize: refuse}, "quicway://h:4433?pin=PIN"},
	} {
		test.conf.Secret = secret
		s, err := New(&test.conf, nettest.New(1).Listen(test.at))
		if err != nil {
			t.Fatal(err)
		}
		want := strings.NewReplacer("TOKEN", s.Token(), "PIN", s.Pin()).Replace(test.want)
		if got := s.URL(test.host); got != want {
			t.Errorf("%s: got %s, want %s", test.name, got, want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for local, want := range map[string]string{
		"0.0.0.0": "127.0.0.1", "::": "::1", "::ffff:0.0.0.0": "127.0.0.1", "192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1",
	} {
		if got := loopbackFor(netip.MustParseAddr(local)).String(); got != want {
			t.Errorf("%s: got %s, want %s", local, got, want)
		}
	}
}
