package p2p

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/netip"
	"testing"

	"github.com/quicway/quicway/internal/control"
)

// probers returns the probers of the two sides of a TLS connection.
func probers(t testing.TB) (dialer, accepter *prober) {
	t.Helper()
	identity, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	server := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{identity.cert}})
	client := tls.Client(b, &tls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if dialer, err = newProber(client.ConnectionState(), control.Dialer); err != nil {
		t.Fatal(err)
	}
	if accepter, err = newProber(server.ConnectionState(), control.Accepter); err != nil {
		t.Fatal(err)
	}
	return dialer, accepter
}

// TestProbe checks that a ping and its pong are accepted once, and only by the other
// side.
func TestProbe(t *testing.T) {
	a, b := probers(t)
	for _, seen := range []string{"192.0.2.1:1", "[2001:db8::1]:65535"} {
		data, sequence := a.sealPing(0)
		ping := bytes.Clone(data)
		if tag, ok := tagOf(ping); !ok || tag != b.own {
			t.Errorf("tag %x, %v, want %x", tag, ok, b.own)
		}
		got, err := b.parse(bytes.Clone(ping))
		if err != nil || got.kind != probePing || got.sequence != sequence {
			t.Fatalf("ping %+v, %v", got, err)
		}
		if _, err := b.parse(bytes.Clone(ping)); err == nil {
			t.Error("a ping is good twice")
		}
		if _, err := a.parse(bytes.Clone(ping)); err == nil {
			t.Error("a ping is good for the side that has made it")
		}
		pong := bytes.Clone(b.sealPong(sequence, netip.MustParseAddrPort(seen)))
		if len(pong) > len(ping) {
			t.Errorf("a pong of %d bytes answers a ping of %d", len(pong), len(ping))
		}
		answer, err := a.parse(pong)
		if err != nil || answer.kind != probePong || answer.answers != sequence || answer.observed.String() != seen {
			t.Errorf("pong %+v, %v", answer, err)
		}
	}
}

// TestProbeForged checks that every byte of a probe is authenticated.
func TestProbeForged(t *testing.T) {
	a, b := probers(t)
	data, _ := a.sealPing(0)
	for i := range data {
		forged := bytes.Clone(data)
		forged[i] ^= 1
		if _, err := b.parse(forged); err == nil {
			t.Errorf("byte %d is not authenticated", i)
		}
	}
	for n := range data {
		if _, err := b.parse(bytes.Clone(data[:n])); err == nil {
			t.Errorf("good when cut after %d bytes", n)
		}
	}
	if _, err := b.parse(bytes.Clone(data)); err != nil {
		t.Errorf("what was not forged: %v", err)
	}
}

// TestProbeOrder checks that reordered probes are accepted, unless they are too old.
func TestProbeOrder(t *testing.T) {
	a, b := probers(t)
	var pings [][]byte
	for range 70 {
		data, _ := a.sealPing(0)
		pings = append(pings, bytes.Clone(data))
	}
	for _, test := range []struct {
		n    int
		good bool
	}{{69, true}, {6, true}, {5, false}, {68, true}, {6, false}, {69, false}} {
		if _, err := b.parse(bytes.Clone(pings[test.n])); (err == nil) != test.good {
			t.Errorf("probe %d of 70: %v, want good: %v", test.n, err, test.good)
		}
	}
}

// FuzzProbe checks that only probes are accepted.
func FuzzProbe(f *testing.F) {
	a, b := probers(f)
	ping, sequence := a.sealPing(0)
	f.Add(bytes.Clone(ping))
	f.Add(bytes.Clone(b.sealPong(sequence, netip.MustParseAddrPort("192.0.2.1:1"))))
	f.Fuzz(func(t *testing.T, data []byte) {
		seen := b.seen
		b.seen = replayWindow{}
		defer func() { b.seen = seen }()
		if p, err := b.parse(bytes.Clone(data)); err == nil && !bytes.Equal(data, ping) {
			t.Errorf("%x is %+v", data, p)
		}
	})
}

// FuzzAddress checks that an address that was read from a frame can be encoded again.
func FuzzAddress(f *testing.F) {
	f.Add(addAddress(7, candidate{ObservedCandidate, netip.MustParseAddrPort("192.0.2.1:1")}).payload)
	f.Add(addAddress(1<<40, candidate{HostCandidate, netip.MustParseAddrPort("[2001:db8::1]:2")}).payload)
	f.Fuzz(func(t *testing.T, payload []byte) {
		n, c, err := parseAddAddress(payload)
		if err != nil {
			return
		}
		m, again, err := parseAddAddress(addAddress(n, c).payload)
		if err != nil || m != n || again != c {
			t.Errorf("%d %+v, then %d %+v, %v", n, c, m, again, err)
		}
		if isUnicast(c.addr) && (c.addr.Addr().IsLoopback() || c.addr.Addr().IsMulticast() || c.addr.Port() == 0) {
			t.Errorf("%v may be sent to", c.addr)
		}
	})
}

// TestMayProbe checks which addresses a peer may have this host send probes to.
func TestMayProbe(t *testing.T) {
	home := []candidate{{HostCandidate, netip.MustParseAddrPort("192.168.1.2:1")}, {ObservedCandidate, netip.MustParseAddrPort("10.0.0.1:1")}}
	for addr, want := range map[string]bool{
		"203.0.113.1:1000":      true,
		"[2001:db8::1]:1000":    true,
		"192.168.77.7:1000":     true,
		"10.0.0.1:1000":         false, // the observed address is not a host address
		"172.16.0.1:1000":       false,
		"100.64.0.1:1000":       false,
		"[fd00::1]:1000":        false,
		"127.0.0.1:1000":        false,
		"[::1]:1000":            false,
		"169.254.169.254:80":    false,
		"[fe80::1]:1000":        false,
		"224.0.0.251:5353":      false,
		"[ff02::fb]:5353":       false,
		"255.255.255.255:67":    false,
		"0.0.0.0:1000":          false,
		"0.1.2.3:1000":          false,
		"240.0.0.1:1000":        false,
		"203.0.113.1:0":         false,
		"[::ffff:10.0.0.1]:100": false,
	} {
		a := netip.MustParseAddrPort(addr)
		if got := mayProbe(netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), home); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
}
