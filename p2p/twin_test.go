package p2p

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/relay"
)

// TestTwins checks what shows that two relays are one, and that a relay cannot pass itself off
// as one with another key.
func TestTwins(t *testing.T) {
	pin, other := someID(t), someID(t)
	at, elsewhere := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[2001:db8::1]:1")
	facts := func(addr string, pin PeerID, at netip.AddrPort, name, instance string) relayFacts {
		return relayFacts{Relay{Addr: addr, Pin: pin}, at, name, instance}
	}
	a := facts("a.test:1", pin, at, "a.one.test:1", "A")
	for name, test := range map[string]struct {
		b    relayFacts
		want bool
	}{
		"nothing in common":             {facts("b.test:1", pin, elsewhere, "b.one.test:1", "B"), false},
		"nothing known":                 {facts("b.test:1", pin, netip.AddrPort{}, "", ""), false},
		"one address":                   {facts("b.test:1", pin, at, "", ""), true},
		"one address, new key":          {facts("b.test:1", other, at, "", ""), true},
		"one process":                   {facts("b.test:1", pin, elsewhere, "", "A"), true},
		"one process, no pin":           {facts("b.test:1", PeerID{}, elsewhere, "", "A"), true},
		"says so, with another key":     {facts("b.test:1", other, elsewhere, "", "A"), false},
		"one name":                      {facts("b.test:1", pin, elsewhere, "a.one.test:1", ""), true},
		"has the other's address":       {facts("b.test:1", pin, elsewhere, "a.test:1", ""), true},
		"has the other's name":          {facts("a.one.test:1", pin, elsewhere, "", ""), true},
		"has the other's name, no pin":  {facts("a.one.test:1", PeerID{}, elsewhere, "", ""), true},
		"names the other, another key":  {facts("b.test:1", other, elsewhere, "a.test:1", ""), false},
		"named by it, with another key": {facts("a.one.test:1", other, elsewhere, "", ""), false},
	} {
		if got, back := a.isTwin(&test.b), test.b.isTwin(&a); got != test.want || back != test.want {
			t.Errorf("%s: %v and %v, want %v", name, got, back, test.want)
		}
	}
	none := facts("b.test:1", pin, netip.AddrPort{}, "", "")
	if nobody := facts("a.test:1", pin, netip.AddrPort{}, "", ""); nobody.isTwin(&none) {
		t.Error("relays of which nothing is known are one")
	}
}

// TestAdvertisedNames checks that a relay has only a name that it may have.
func TestAdvertisedNames(t *testing.T) {
	pin, other := someID(t), someID(t)
	own := Relay{Addr: "own.test:1", Pin: other}
	e, err := NewEndpoint(&Config{Relay: own}, nettest.New(1).Listen("198.51.100.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	from := Relay{Addr: "from.test:1", Pin: pin}
	for name, test := range map[string]struct {
		from Relay
		told control.Member
		want string
	}{
		"its own":               {from, control.Member{Addr: "a.test:1"}, "a.test:1"},
		"none":                  {from, control.Member{}, ""},
		"of another key":        {from, control.Member{Addr: "a.test:1", Pin: other.String()}, ""},
		"malformed":             {from, control.Member{Addr: "a.test"}, ""},
		"too long":              {from, control.Member{Addr: strings.Repeat("a", 300) + ":1"}, ""},
		"without a pin":         {Relay{Addr: "ca.test:1"}, control.Member{Addr: "a.test:1"}, ""},
		"a configured relay's":  {from, control.Member{Addr: own.Addr, Pin: other.String()}, own.Addr},
		"its own configuration": {own, control.Member{Addr: own.Addr}, own.Addr},
	} {
		if got := e.nameOf(test.from, test.told); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// address6 is the second address of a relay of both families.
const address6 = "[2001:db8::1]:4433"

// bothFamilies has the first relay use IPv6 as well. end stops it.
func (f *fleet) bothFamilies() (end func()) {
	f.Helper()
	f.kill(0)
	conf := &relay.Config{Secret: relaySecret, TTL: 20 * time.Second}
	server, err := relay.New(conf, f.net.Listen(fleetAddrs[0]), f.net.Listen(address6))
	if err != nil {
		f.Fatal(err)
	}
	f.mend(0)
	served := make(chan error, 1)
	go func() { served <- server.Run(context.Background()) }()
	return func() { f.unserve(server, served) }
}

// dualHost makes an endpoint that uses both families, and knows the first relay by both addresses.
func (f *fleet) dualHost() *host {
	f.Helper()
	f.hosts++
	conf := &Config{Relay: f.relay(), Policy: RelayOnly, DisablePortMapping: true}
	f.several(conf)
	second := f.relay()
	second.Addr = address6
	conf.Relays = append(conf.Relays, second)
	conn := f.net.Listen(fmt.Sprintf("198.51.100.%d:1000", f.hosts))
	e, err := NewEndpoint(conf, conn, f.net.Listen(fmt.Sprintf("[2001:db8::1:%d]:1000", f.hosts)))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = e.Close() })
	return &host{e, conn}
}

// TestOneRelayAtTwoAddresses checks that a relay with an IPv4 and an IPv6 address is no standby
// for itself, and that a connection through one address is not disturbed by the other one.
func TestOneRelayAtTwoAddresses(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		end := f.bothFamilies()
		defer end()
		f.cut(1, 0)
		x, y := f.dualHost(), f.dualHost()
		time.Sleep(time.Second)
		a, b := f.connect(x, y)
		pulse := f.beat(a, b)
		time.Sleep(time.Second)
		pulse.reset()
		time.Sleep(30 * time.Second)
		if pause := pulse.reset(); pause > 200*time.Millisecond {
			f.Errorf("silent for %v", pause)
		}
		for _, s := range x.Relays() {
			if s.Relay.Addr == address6 && !s.usable() {
				f.Errorf("the second address does not answer: %v", s.Err)
			}
		}
		if m, n := len(a.link.legs()), len(b.link.legs()); m != 1 || n != 1 {
			f.Errorf("%d and %d legs at one relay", m, n)
		}
		f.mend(1)
		f.standby(1)
		f.end(pulse)
		f.turns(0, a, b)
	})
}
