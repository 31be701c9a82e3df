package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/relay"
)

const relayName = "relay.test:4433"

// names is a resolver. It never answers for a family that is not in it.
type names map[string][]string

func (n *names) lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	of, ok := (*n)[network]
	if !ok {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if len(of) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	var addrs []netip.Addr
	for _, a := range of {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	return addrs, nil
}

// dual makes an endpoint with sockets of both families, which looks up the relay's name.
func (l *lab) dual(n *names) *host {
	l.Helper()
	l.hosts++
	conf := &Config{Relay: l.relay(), Policy: RelayOnly, DisablePortMapping: true, lookup: n.lookup}
	conf.Relay.Addr = relayName
	if testing.Verbose() {
		conf.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("host", l.hosts)
	}
	v4 := l.net.Listen(fmt.Sprintf("198.51.100.%d:1000", l.hosts))
	e, err := NewEndpoint(conf, v4, l.net.Listen(fmt.Sprintf("[2001:db8:1::%d]:1000", l.hosts)))
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		if err := e.Close(); err != nil {
			l.Errorf("close endpoint: %v", err)
		}
	})
	return &host{e, v4}
}

// relayAt moves the relay to other addresses.
func (l *lab) relayAt(addrs ...string) {
	l.Helper()
	l.stopRelay()
	var conns []net.PacketConn
	for _, a := range addrs {
		conns = append(conns, l.net.Listen(a))
	}
	server, err := relay.New(&relay.Config{Secret: relaySecret, TTL: 20 * time.Second}, conns...)
	if err != nil {
		l.Fatal(err)
	}
	l.server, l.served = server, make(chan error, 1)
	served := l.served
	go func() { served <- server.Run(context.Background()) }()
}

// TestRelayAtAnyOfItsAddresses checks that a relay is reached if any one of its
// addresses answers, also if the resolver is slow or fails for one family.
func TestRelayAtAnyOfItsAddresses(t *testing.T) {
	const v4, v6, nobody4, nobody6 = "192.0.2.1", "2001:db8::1", "192.0.2.66", "2001:db8::66"
	var many []string
	for i := range 8 {
		many = append(many, fmt.Sprintf("2001:db8::66:%d", i))
	}
	for name, n := range map[string]names{
		"IPv6 is dead":         {"ip6": {nobody6}, "ip4": {v4}},
		"all of IPv6 are dead": {"ip6": many, "ip4": {v4}},
		"IPv4 is dead":         {"ip6": {v6}, "ip4": {nobody4}},
		"the first is dead":    {"ip6": {nobody6, v6}, "ip4": {nobody4, "192.0.2.67"}},
		"the last lives":       {"ip6": {nobody6, "2001:db8::67"}, "ip4": {nobody4, "192.0.2.67", v4}},
		"no AAAA":              {"ip6": {}, "ip4": {v4}},
		"no A":                 {"ip6": {v6}, "ip4": {}},
		"AAAA is not answered": {"ip4": {v4}},
		"A is not answered":    {"ip6": {v6}},
	} {
		t.Run(name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				l.relayAt(relayAddr, "[2001:db8::1]:4433")
				a, b := l.connect(l.dual(&n), l.dual(&n))
				l.exchange(a, b, 10_000)
			})
		})
	}
}

// TestRelayWithoutAddress checks the error for a relay whose name has no address.
func TestRelayWithoutAddress(t *testing.T) {
	runLab(t, func(l *lab) {
		n := names{"ip6": {}, "ip4": {}}
		_, err := l.dual(&n).Dial(l.Context(), PeerID{1}, nil)
		var dns *net.DNSError
		if !errors.Is(err, ErrRelayUnreachable) || !errors.As(err, &dns) {
			l.Error(err)
		}
	})
}

// TestRelayMoves checks that connections survive when the relay moves to another
// address, also of another family, and its name follows.
func TestRelayMoves(t *testing.T) {
	for name, to := range map[string]struct {
		addr  string
		names names
	}{
		"IPv4": {"192.0.2.77:4433", names{"ip6": {}, "ip4": {"192.0.2.77"}}},
		"IPv6": {"[2001:db8::77]:4433", names{"ip6": {"2001:db8::77"}, "ip4": {}}},
	} {
		t.Run(name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				n := names{"ip6": {}, "ip4": {"192.0.2.1"}}
				a, b := l.connect(l.dual(&n), l.dual(&n))
				l.exchange(a, b, 10_000)
				l.relayAt(to.addr)
				n = to.names
				l.exchange(a, b, 10_000)
				if got := a.Path().Remote.String(); got != to.addr {
					l.Errorf("packets go to %s, want %s", got, to.addr)
				}
				l.alive(a, b)
			})
		})
	}
}

// TestRelayWithoutResolver checks that a restarted relay is found although its name
// cannot be resolved any more.
func TestRelayWithoutResolver(t *testing.T) {
	for name, now := range map[string]names{"silent": {}, "fails": {"ip6": {}, "ip4": {}}} {
		t.Run(name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				n := names{"ip6": {}, "ip4": {"192.0.2.1"}}
				a, b := l.connect(l.dual(&n), l.dual(&n))
				n = now
				l.relayAt(relayAddr)
				l.exchange(a, b, 10_000)
				l.alive(a, b)
			})
		})
	}
}

// TestUnreachableFamilyIsLeft checks that an endpoint reaches the relay by the other
// address family when packets of the present one are lost.
func TestUnreachableFamilyIsLeft(t *testing.T) {
	for _, lost := range []bool{true, false} {
		runLab(t, func(l *lab) {
			n := names{"ip6": {"2001:db8::1"}, "ip4": {"192.0.2.1"}}
			l.relayAt(relayAddr, "[2001:db8::1]:4433")
			l.net.Filter(func(p nettest.Packet) bool { return p.To.Addr().Is4() != lost })
			a, b := l.connect(l.dual(&n), l.dual(&n))
			l.net.Filter(func(p nettest.Packet) bool { return p.To.Addr().Is4() == lost })
			l.exchange(a, b, 10_000)
			l.alive(a, b)
		})
	}
}

// TestInterleave checks that addresses of both families alternate after the one that
// worked last.
func TestInterleave(t *testing.T) {
	addr := netip.MustParseAddrPort
	in := []netip.AddrPort{addr("[2001:db8::1]:1"), addr("[2001:db8::2]:1"), addr("192.0.2.1:1"), addr("192.0.2.2:1")}
	for last, want := range map[netip.AddrPort][]int{
		{}:    {0, 2, 1, 3},
		in[1]: {1, 2, 0, 3},
		in[3]: {3, 0, 2, 1},
	} {
		got := interleave(in, last)
		for i, n := range want {
			if got[i] != in[n] {
				t.Errorf("last %v: %v", last, got)
				break
			}
		}
	}
}
