package nettest

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// Addresses of observers on the public network.
const (
	observer      = "198.51.100.1:3478"
	observerPort  = "198.51.100.1:3479"
	observerOther = "198.51.100.2:3478"
)

// send sends a packet whose content is its target address.
func send(t *testing.T, from *Conn, to netip.AddrPort) {
	t.Helper()
	if _, err := from.WriteTo([]byte(to.String()), UDPAddr(to)); err != nil {
		t.Fatal(err)
	}
}

// heard returns the source of the next packet. It does not wait for one.
func heard(c *Conn) (netip.AddrPort, bool) {
	select {
	case p := <-c.queue:
		return p.From, true
	default:
		return netip.AddrPort{}, false
	}
}

// seen sends a packet from a conn behind a NAT to an observer, and returns the source
// address that the observer sees.
func seen(t *testing.T, from, observer *Conn) netip.AddrPort {
	t.Helper()
	send(t, from, observer.local)
	at, ok := heard(observer)
	if !ok {
		t.Fatalf("%v does not hear %v", observer.local, from.local)
	}
	return at
}

// arrives reports whether a packet arrives at c. The test fails if its source is not the
// sender's address.
func arrives(t *testing.T, from *Conn, to netip.AddrPort, c *Conn) bool {
	t.Helper()
	send(t, from, to)
	at, ok := heard(c)
	if ok && at != from.local {
		t.Fatalf("the packet of %v came from %v", from.local, at)
	}
	return ok
}

func TestMapping(t *testing.T) {
	for _, test := range []struct {
		mapping              Dependence
		samePort, sameTarget bool // for another port, another address
	}{
		{EndpointIndependent, true, true},
		{AddressDependent, true, false},
		{AddressPortDependent, false, false},
	} {
		t.Run(test.mapping.String(), func(t *testing.T) {
			n := New(1)
			lan := n.LAN(Gateway{Address: "203.0.113.1", Mapping: test.mapping, PreservePorts: true})
			host, neighbour := lan.Listen("192.168.1.2:1000"), lan.Listen("192.168.1.3:1000")
			a, b, c := n.Listen(observer), n.Listen(observerPort), n.Listen(observerOther)

			first := seen(t, host, a)
			if want := netip.MustParseAddrPort("203.0.113.1:1000"); first != want {
				t.Errorf("the first mapping: got %v, want %v", first, want)
			}
			if again := seen(t, host, a); again != first {
				t.Errorf("the same target: got %v, want %v", again, first)
			}
			if at := seen(t, host, b); (at == first) != test.samePort {
				t.Errorf("another port: got %v, the first was %v", at, first)
			}
			if at := seen(t, host, c); (at == first) != test.sameTarget {
				t.Errorf("another address: got %v, the first was %v", at, first)
			}
			if at := seen(t, neighbour, a); at == first || at.Addr() != first.Addr() {
				t.Errorf("a neighbour: got %v, the first was %v", at, first)
			}
		})
	}
}

func TestRandomPorts(t *testing.T) {
	n := New(1)
	lan := n.LAN(Gateway{Address: "203.0.113.1"})
	a := n.Listen(observer)
	ports := make(map[uint16]bool)
	for i := range 20 {
		at := seen(t, lan.Listen(fmt.Sprintf("192.168.1.2:%d", 1000+i)), a)
		if at.Port() == uint16(1000+i) {
			t.Errorf("port %d is preserved", at.Port())
		}
		ports[at.Port()] = true
	}
	if len(ports) != 20 {
		t.Errorf("got %d ports, want 20", len(ports))
	}
}

func TestFiltering(t *testing.T) {
	for _, test := range []struct {
		filtering     Dependence
		port, address bool // admits another port, another address
	}{
		{EndpointIndependent, true, true},
		{AddressDependent, true, false},
		{AddressPortDependent, false, false},
	} {
		for _, family := range []string{"IPv4", "IPv6"} {
			t.Run(family+" "+test.filtering.String(), func(t *testing.T) {
				n := New(1)
				lan := n.LAN(Gateway{Address: "203.0.113.1", Prefix: "2001:db8:1::/64", Filtering: test.filtering})
				inside, outside := "192.168.1.2:1000", [3]string{observer, observerPort, observerOther}
				if family == "IPv6" {
					inside, outside = "[2001:db8:1::2]:1000", [3]string{"[2001:db8::1]:1", "[2001:db8::1]:2", "[2001:db8::2]:1"}
				}
				host := lan.Listen(inside)
				a, b, c := n.Listen(outside[0]), n.Listen(outside[1]), n.Listen(outside[2])
				if family == "IPv6" && arrives(t, a, host.local, host) {
					t.Error("the firewall is open before anything is sent")
				}
				at := seen(t, host, a)
				if (at == host.local) != (family == "IPv6") {
					t.Errorf("seen at %v", at)
				}
				if !arrives(t, a, at, host) {
					t.Error("an answer does not arrive")
				}
				if got := arrives(t, b, at, host); got != test.port {
					t.Errorf("from another port: got %v, want %v", got, test.port)
				}
				if got := arrives(t, c, at, host); got != test.address {
					t.Errorf("from another address: got %v, want %v", got, test.address)
				}
				if arrives(t, a, netip.AddrPortFrom(at.Addr(), at.Port()^1), host) {
					t.Error("a port that nothing is bound to lets a packet in")
				}
			})
		}
	}
}

func TestHairpin(t *testing.T) {
	for _, hairpin := range []bool{false, true} {
		n := New(1)
		lan := n.LAN(Gateway{Address: "203.0.113.1", Hairpin: hairpin})
		alice, bob := lan.Listen("192.168.1.2:1000"), lan.Listen("192.168.1.3:1000")
		a := n.Listen(observer)
		aliceAt, bobAt := seen(t, alice, a), seen(t, bob, a)

		send(t, alice, bobAt)
		from, ok := heard(bob)
		if ok != hairpin || hairpin && from != aliceAt {
			t.Errorf("hairpin %v: bob hears %v, %v; want alice's outside address %v", hairpin, from, ok, aliceAt)
		}
		send(t, alice, bob.local)
		if from, ok := heard(bob); !ok || from != alice.local {
			t.Errorf("on the LAN bob hears %v, %v; want %v", from, ok, alice.local)
		}
	}
}

func TestBindingExpires(t *testing.T) {
	for name, test := range map[string]struct {
		keep  func(t *testing.T, host, a *Conn, at netip.AddrPort)
		conf  Gateway
		lives bool
	}{
		"silence":        {func(*testing.T, *Conn, *Conn, netip.AddrPort) {}, Gateway{}, false},
		"from inside":    {func(t *testing.T, host, a *Conn, _ netip.AddrPort) { seen(t, host, a) }, Gateway{}, true},
		"from outside":   {func(t *testing.T, host, a *Conn, at netip.AddrPort) { arrives(t, a, at, host) }, Gateway{}, false},
		"outside counts": {func(t *testing.T, host, a *Conn, at netip.AddrPort) { arrives(t, a, at, host) }, Gateway{InboundKeeps: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			Bubble(t, func(t *testing.T) {
				n := New(1)
				test.conf.Address, test.conf.Lifetime = "203.0.113.1", 30*time.Second
				test.conf.Filtering = AddressPortDependent
				host, a := n.LAN(test.conf).Listen("192.168.1.2:1000"), n.Listen(observer)
				at := seen(t, host, a)
				for range 2 {
					time.Sleep(20 * time.Second)
					test.keep(t, host, a, at)
				}
				if got := arrives(t, a, at, host); got != test.lives {
					t.Errorf("a packet from outside arrives: got %v, want %v", got, test.lives)
				}
				if again := seen(t, host, a); (again == at) != test.lives {
					t.Errorf("the mapping is %v, was %v", again, at)
				}
			})
		})
	}
}

// TestFilterExpires checks that a packet to any peer refreshes the binding, but only one to
// a peer refreshes that peer's entry in the filter.
func TestFilterExpires(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		n := New(1)
		lan := n.LAN(Gateway{Address: "203.0.113.1", Filtering: AddressDependent, Lifetime: 30 * time.Second})
		host, a, b := lan.Listen("192.168.1.2:1000"), n.Listen(observer), n.Listen(observerOther)
		at := seen(t, host, a)
		time.Sleep(20 * time.Second)
		seen(t, host, b)
		time.Sleep(20 * time.Second)
		if arrives(t, a, at, host) {
			t.Error("a peer that is not sent to is let in")
		}
		if !arrives(t, b, at, host) {
			t.Error("a peer that is sent to is not let in")
		}
	})
}

func TestForget(t *testing.T) {
	n := New(1)
	lan := n.LAN(Gateway{Address: "203.0.113.1"})
	host, a := lan.Listen("192.168.1.2:1000"), n.Listen(observer)
	at := seen(t, host, a)
	lan.Forget()
	if arrives(t, a, at, host) {
		t.Error("a forgotten mapping lets a packet in")
	}
	if again := seen(t, host, a); again == at {
		t.Errorf("the mapping is %v again", again)
	}
	lan.Renumber("203.0.113.2")
	if arrives(t, a, at, host) {
		t.Error("the old address lets a packet in")
	}
	if again := seen(t, host, a); again.Addr() != netip.MustParseAddr("203.0.113.2") {
		t.Errorf("seen at %v", again)
	}
}

func TestForward(t *testing.T) {
	n := New(1)
	lan := n.LAN(Gateway{Address: "203.0.113.1", Mapping: AddressPortDependent, Filtering: AddressPortDependent})
	host, a := lan.Listen("192.168.1.2:1000"), n.Listen(observer)
	lan.Forward(7000, "192.168.1.2:1000")
	at := netip.MustParseAddrPort("203.0.113.1:7000")
	if !arrives(t, a, at, host) {
		t.Error("a forwarded port lets nothing in")
	}
	if got := seen(t, host, a); got != at {
		t.Errorf("the answer comes from %v, want %v", got, at)
	}
}

// TestCarrierGradeNAT checks two homes with a NAT each behind one NAT of their provider.
func TestCarrierGradeNAT(t *testing.T) {
	n := New(1)
	provider := n.LAN(Gateway{Address: "203.0.113.1", Mapping: AddressPortDependent, Filtering: AddressPortDependent, Hairpin: true})
	home1 := provider.LAN(Gateway{Address: "100.64.0.1", Filtering: AddressPortDependent})
	home2 := provider.LAN(Gateway{Address: "100.64.0.2"})
	alice, bob := home1.Listen("192.168.1.2:1000"), home2.Listen("192.168.1.2:1000")
	a, b := n.Listen(observer), n.Listen(observerOther)

	at := seen(t, alice, a)
	if at.Addr() != netip.MustParseAddr("203.0.113.1") {
		t.Errorf("seen at %v", at)
	}
	if !arrives(t, a, at, alice) {
		t.Error("an answer does not arrive")
	}
	if at == seen(t, alice, b) {
		t.Error("the provider's NAT maps as the home's does")
	}
	within := provider.Listen("100.64.0.99:1")
	bobAt := seen(t, bob, within)
	if bobAt.Addr() != netip.MustParseAddr("100.64.0.2") {
		t.Errorf("within the provider's network bob is %v", bobAt)
	}
	send(t, alice, bobAt)
	if from, ok := heard(bob); !ok || from.Addr() != netip.MustParseAddr("100.64.0.1") {
		t.Errorf("a neighbour hears %v, %v", from, ok)
	}
	send(t, a, netip.MustParseAddrPort("100.64.0.2:1"))
	send(t, a, bob.local)
	if from, ok := heard(bob); ok {
		t.Errorf("a private address is routed from outside: heard %v", from)
	}
}

func TestBlocked(t *testing.T) {
	n := New(1)
	relay, a := n.Listen(observer), n.Listen(observerOther)
	nothing := n.LAN(Gateway{Address: "203.0.113.1", Allow: func(netip.AddrPort) bool { return false }})
	some := n.LAN(Gateway{Address: "203.0.113.2", Allow: func(to netip.AddrPort) bool { return to == relay.local }})
	seen(t, some.Listen("192.168.1.2:1000"), relay)
	for _, lan := range []*LAN{nothing, some} {
		send(t, lan.Listen("192.168.1.3:1000"), a.local)
		if from, ok := heard(a); ok {
			t.Errorf("UDP of %v is not blocked", from)
		}
	}
}

// TestFamilies checks that a gateway forwards only the address families it is configured
// for.
func TestFamilies(t *testing.T) {
	n := New(1)
	a4, a6 := n.Listen(observer), n.Listen("[2001:db8::1]:1")
	for _, test := range []struct {
		gateway Gateway
		v4, v6  bool
	}{
		{Gateway{Address: "203.0.113.1"}, true, false},
		{Gateway{Prefix: "2001:db8:1::/64"}, false, true},
	} {
		lan := n.LAN(test.gateway)
		host4, host6 := lan.Listen("192.168.1.2:1000"), lan.Listen("[2001:db8:1::2]:1000")
		send(t, host4, a4.local)
		send(t, host6, a6.local)
		if _, ok := heard(a4); ok != test.v4 {
			t.Errorf("%+v: IPv4 passes: got %v, want %v", test.gateway, ok, test.v4)
		}
		if _, ok := heard(a6); ok != test.v6 {
			t.Errorf("%+v: IPv6 passes: got %v, want %v", test.gateway, ok, test.v6)
		}
		send(t, host6, netip.MustParseAddrPort("[2001:db8:1::99]:1")) // no such host: must not loop
	}
}

// TestFirewallIgnoresMapping checks that the IPv6 firewall has one entry for each inside
// address, whatever the NAT's mapping is.
func TestFirewallIgnoresMapping(t *testing.T) {
	n := New(1)
	lan := n.LAN(Gateway{Prefix: "2001:db8:1::/64", Mapping: AddressPortDependent, Filtering: AddressPortDependent})
	host, a, b := lan.Listen("[2001:db8:1::2]:1000"), n.Listen("[2001:db8::1]:1"), n.Listen("[2001:db8::2]:1")
	seen(t, host, a)
	seen(t, host, b)
	if !arrives(t, a, host.local, host) || !arrives(t, b, host.local, host) {
		t.Error("an answer does not arrive")
	}
}

// TestGoneHost checks that a packet from outside for a host that is gone does not leave
// through the gateway again.
func TestGoneHost(t *testing.T) {
	n := New(1)
	lan := n.LAN(Gateway{Address: "203.0.113.1"})
	host, a := lan.Listen("192.168.1.2:1000"), n.Listen(observer)
	at := seen(t, host, a)
	host.Close()
	packets := 0
	n.Filter(func(Packet) bool { packets++; return true })
	arrives(t, a, at, host)
	if packets != 1 {
		t.Errorf("got %d packets on the network, want 1", packets)
	}
}

func TestLinks(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		n := New(1)
		alice := n.LAN(Gateway{Address: "203.0.113.1"}).Listen("192.168.1.2:1000")
		bob := n.LAN(Gateway{Address: "203.0.113.2"}).Listen("192.168.1.2:1000")
		relay := n.Listen(observer)
		aliceAt, bobAt := seen(t, alice, relay), seen(t, bob, relay)

		both := func() [2]bool {
			send(t, alice, bobAt)
			send(t, bob, aliceAt)
			_, toBob := heard(bob)
			_, toAlice := heard(alice)
			return [2]bool{toBob, toAlice}
		}
		yes, no := [2]bool{true, true}, [2]bool{}
		n.Cut("203.0.113.2", "203.0.113.1")
		if got := both(); got != no {
			t.Errorf("cut: got %v", got)
		}
		seen(t, alice, relay)
		n.Mend("203.0.113.1", "203.0.113.2")
		if got := both(); got != yes {
			t.Errorf("mended: got %v", got)
		}
		n.Link("203.0.113.1", "203.0.113.2", Conditions{MTU: 3})
		if got := both(); got != no {
			t.Errorf("a small MTU: got %v", got)
		}
		n.Mend("203.0.113.1", "203.0.113.2")
		n.Outage(time.Second, "203.0.113.1")
		if got := both(); got != no {
			t.Errorf("outage of one: got %v", got)
		}
		seen(t, bob, relay)
		time.Sleep(time.Second)
		if got := both(); got != yes {
			t.Errorf("after the outage: got %v", got)
		}
		n.Outage(time.Second)
		if got := both(); got != no {
			t.Errorf("outage of the network: got %v", got)
		}
	})
}

func TestNode(t *testing.T) {
	n := New(1)
	a4, a6 := n.Listen(observer), n.Listen("[2001:db8::1]:1")
	wifi := n.LAN(Gateway{Address: "203.0.113.1", Prefix: "2001:db8:1::/64"})
	mobile := n.LAN(Gateway{Address: "203.0.113.2"})
	neighbour := mobile.Listen("100.64.0.9:1")

	node := NewNode()
	v4, v6 := node.Listen("0.0.0.0:1000"), node.Listen("[::]:1000")
	unreachable := func(c *Conn, to netip.AddrPort) {
		t.Helper()
		if _, err := c.WriteTo(nil, UDPAddr(to)); !errors.Is(err, ErrUnreachable) {
			t.Errorf("to %v: got %v, want %v", to, err, ErrUnreachable)
		}
	}
	unreachable(v4, a4.local)

	node.Plug("wifi", wifi.Network, "192.168.1.2/24", "2001:db8:1::2/64")
	unreachable(v4, a6.local)
	node.Plug("mobile", mobile.Network, "100.64.0.2/10")
	if got := fmt.Sprint(node.Addrs()); got != "[192.168.1.2 2001:db8:1::2 100.64.0.2]" {
		t.Errorf("addresses: got %v", got)
	}
	outside := func(want string) netip.AddrPort {
		t.Helper()
		at := seen(t, v4, a4)
		if at.Addr().String() != want {
			t.Errorf("seen at %v, want %v", at, want)
		}
		if !arrives(t, a4, at, v4) {
			t.Error("an answer does not arrive")
		}
		return at
	}
	old := outside("203.0.113.1")
	if at := seen(t, v6, a6); at.Addr() != netip.MustParseAddr("2001:db8:1::2") {
		t.Errorf("seen at %v", at)
	}
	if at := seen(t, v4, neighbour); at != netip.MustParseAddrPort("100.64.0.2:1000") {
		t.Errorf("a neighbour of the second interface sees %v", at)
	}
	node.Prefer("mobile")
	outside("203.0.113.2")
	if !arrives(t, a4, old, v4) {
		t.Error("the interface that is not preferred hears nothing")
	}
	node.Unplug("mobile")
	outside("203.0.113.1")
	node.Plug("wifi", wifi.Network, "192.168.1.7/24") // another address
	if arrives(t, a4, old, v4) {
		t.Error("the old address still hears")
	}
	outside("203.0.113.1")
	unreachable(v6, a6.local)
	node.Unplug("wifi")
	unreachable(v4, a4.local)

	node.Plug("wifi", wifi.Network, "192.168.1.7/24", "192.168.1.8/24")
	bound := node.Listen("192.168.1.8:2000")
	lan := wifi.Listen("192.168.1.9:1")
	if at := seen(t, bound, lan); at != bound.local {
		t.Errorf("a bound conn sends from %v", at)
	}
	if at := seen(t, v4, lan); at.Addr() != netip.MustParseAddr("192.168.1.7") {
		t.Errorf("an unbound conn sends from %v", at)
	}
	if err := v4.Close(); err != nil {
		t.Fatal(err)
	}
	wifi.Listen("192.168.1.7:1000") // free again
}
