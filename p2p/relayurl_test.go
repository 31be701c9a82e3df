package p2p

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/relay"
)

// TestRelayURLIsRead checks that ParseRelay reads all that relay.Server.URL says.
func TestRelayURLIsRead(t *testing.T) {
	server, err := relay.Listen(context.Background(), "udp", "127.0.0.1:0", &relay.Config{
		Token: "a:b@c/d?e#f&g %", Zone: "eu west/ü&", TunnelPort: 443,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	pin, err := ParsePeerID(server.Pin())
	if err != nil {
		t.Fatal(err)
	}
	for host, addr := range map[string]string{
		"":                        server.Addr().String(),
		"relay.example.org:4433":  "relay.example.org:4433",
		"[2001:db8::1]:4433":      "[2001:db8::1]:4433",
		"[fe80::1%eth0]:4433":     "[fe80::1%eth0]:4433",
		"xn--bcher-kva.example:1": "xn--bcher-kva.example:1",
	} {
		want := Relay{Addr: addr, Token: server.Token(), Pin: pin, TunnelPort: 443, Zone: "eu west/ü&"}
		got, err := ParseRelay(server.URL(host))
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", server.URL(host), got, err, want)
		}
		if again, err := ParseRelay(got.String()); err != nil || again != want {
			t.Errorf("%s: got %+v, %v, want %+v", got, again, err, want)
		}
	}
}

// TestMalformedRelays checks that a text that does not lead to a relay is refused when it is
// read, and not when it is used, and that the error does not tell the token.
func TestMalformedRelays(t *testing.T) {
	for _, text := range []string{
		"", "relay.example.org:4433", "https://secret@relay.example.org:4433", "quicway:relay.example.org:4433",
		"quicway://secret@relay.example.org", "quicway://secret@:4433", "quicway://secret@relay.example.org:0",
		"quicway://secret@relay.example.org:70000", "quicway://secret@relay.example.org:4433/path",
		"quicway://secret:more@relay.example.org:4433", "quicway://secret@relay.example.org:4433#part",
		"quicway://secret@relay.example.org:4433?pin=short", "quicway://secret@relay.example.org:4433?tunnel=x",
		"quicway://secret@relay.example.org:4433?pin=%zz", "quicway://secret@relay.example.org:4433?zone=a;pin=b",
		"quicway://part@secret@relay.example.org:0",
	} {
		_, err := ParseRelay(text)
		if !errors.Is(err, ErrMalformedRelay) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, want %v", text, err, ErrMalformedRelay)
		}
	}
}

// TestRelayWithHugeHeader checks that a relay cannot fill this host's memory with the header of
// an answer.
func TestRelayWithHugeHeader(t *testing.T) {
	identity, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	conf := http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{identity.Certificate()}})
	listener, err := quic.ListenAddrEarly("127.0.0.1:0", conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := &http3.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/offers/") {
			w.Header().Set(control.SenderField, strings.Repeat("s", 1<<20))
		}
	})}
	defer server.Close()
	go server.ServeListener(listener)
	r := Relay{Addr: listener.Addr().String(), Pin: identity.ID()}
	e, err := NewEndpoint(&Config{Relay: r, DisableTunnel: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	client, err := e.relays.acquire(r)
	if err != nil {
		t.Fatal(err)
	}
	defer e.relays.release(client)
	conn, err := client.current(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if o, err := conn.takeOffer(context.Background(), "name", ""); !errors.Is(err, ErrRelayUnreachable) {
		t.Errorf("got an offer (%v) and %v, want %v", o != nil, err, ErrRelayUnreachable)
	}
}
