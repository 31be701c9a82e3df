package p2p

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// site is a network that hosts are in, with or without a NAT.
type site struct {
	*lab
	lan   *nettest.LAN
	where *nettest.Network
	addrs int
}

// public makes a site without a NAT.
func (l *lab) public() *site { return &site{lab: l, where: l.net} }

// behind makes a site behind a gateway.
func (l *lab) behind(g nettest.Gateway) *site {
	lan := l.net.LAN(g)
	return &site{lab: l, lan: lan, where: lan.Network}
}

// peer makes an endpoint at a site, with PreferDirect.
func (s *site) peer(change func(*Config)) *host {
	s.Helper()
	s.addrs++
	addr := fmt.Sprintf("192.168.1.%d:1000", 1+s.addrs)
	if s.lan == nil {
		s.lab.hosts++
		addr = fmt.Sprintf("198.51.100.%d:1000", s.lab.hosts)
	}
	conf := &Config{Relay: s.relay(), DisablePortMapping: true}
	if testing.Verbose() {
		conf.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("host", addr)
	}
	if change != nil {
		change(conf)
	}
	conn := s.where.Listen(addr)
	e, err := NewEndpoint(conf, conn)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if err := e.Close(); err != nil {
			s.Errorf("close endpoint: %v", err)
		}
	})
	return &host{e, conn}
}

// until waits until the paths of both sides are of a kind.
func (l *lab) until(want PathKind, conns ...*Conn) {
	l.Helper()
	deadline := time.Now().Add(time.Minute)
	for _, c := range conns {
		for c.Path().Kind != want {
			if time.Now().After(deadline) {
				l.Fatalf("path %+v, want one of kind %v", c.Path(), want)
			}
			l.alive(c)
			time.Sleep(time.Millisecond)
		}
	}
}

// forwarded is how many packets of peers the relay has forwarded.
func (l *lab) forwarded() uint64 { return l.server.Stats().ForwardedPackets }

// TestDirect checks that two hosts that can reach each other soon get a direct path, and
// that the relay then forwards nothing.
func TestDirect(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
		l.until(Direct, a, b)
		time.Sleep(time.Second) // for the relay path
		before := l.forwarded()
		l.exchange(a, b, 4<<20)
		if n := l.forwarded() - before; n != 0 {
			l.Errorf("the relay has forwarded %d packets", n)
		}
		l.alive(a, b)
		t.Logf("time to direct %v, %v", a.Stats().TimeToDirect, b.Stats().TimeToDirect)
		if !a.finder.carrier.relayPath.isReady() {
			l.Error("the relay path is not ready")
		}
	})
}

// natKinds are the gateways of the matrix, by name.
var natKinds = []struct {
	name string
	site func(*lab, int) *site
}{
	{"none", func(l *lab, _ int) *site { return l.public() }},
	{"full cone", natSite(nettest.Gateway{})},
	{"address-restricted", natSite(nettest.Gateway{Filtering: nettest.AddressDependent})},
	{"port-restricted", natSite(nettest.Gateway{Filtering: nettest.AddressPortDependent})},
	{"symmetric", natSite(nettest.Gateway{Mapping: nettest.AddressPortDependent, Filtering: nettest.AddressPortDependent})},
	{"carrier-grade", carrierGrade},
	{"UDP blocked", natSite(nettest.Gateway{Allow: func(to netip.AddrPort) bool { return to.String() == relayAddr }})},
}

func natSite(g nettest.Gateway) func(*lab, int) *site {
	return func(l *lab, side int) *site {
		g.Address = fmt.Sprintf("203.0.113.%d", 1+side)
		return l.behind(g)
	}
}

// carrierGrade is a NAT behind a NAT.
func carrierGrade(l *lab, side int) *site {
	outer := l.net.LAN(nettest.Gateway{Address: fmt.Sprintf("203.0.113.%d", 1+side), Filtering: nettest.AddressPortDependent})
	inner := outer.LAN(nettest.Gateway{Address: "100.64.0.2", Filtering: nettest.AddressPortDependent})
	return &site{lab: l, lan: inner, where: inner.Network}
}

// punchable says which pairs of NATs must get a direct path.
func punchable(a, b string) bool {
	hard := func(s string) bool { return s == "symmetric" }
	strict := func(s string) bool {
		return s == "symmetric" || s == "port-restricted" || s == "carrier-grade"
	}
	return a != "UDP blocked" && b != "UDP blocked" && !(hard(a) && strict(b)) && !(hard(b) && strict(a))
}

// TestMatrix checks between which pairs of NATs there is a direct path, and that other
// pairs stay on the relay and report why.
func TestMatrix(t *testing.T) {
	for _, a := range natKinds {
		for _, b := range natKinds {
			t.Run(a.name+"/"+b.name, func(t *testing.T) {
				runLab(t, func(l *lab) {
					alice, bob := a.site(l, 0).peer(nil), b.site(l, 1).peer(nil)
					c, d := l.connect(alice, bob)
					if !punchable(a.name, b.name) {
						l.stays(c, d)
						return
					}
					l.until(Direct, c, d)
					// Three round trips to the relay, and 50 ms.
					if after := c.Stats().TimeToDirect; after > 170*time.Millisecond {
						l.Errorf("direct after %v", after)
					}
					time.Sleep(time.Second)
					before := l.forwarded()
					l.exchange(c, d, 256<<10)
					if n := l.forwarded() - before; n != 0 {
						l.Errorf("the relay has forwarded %d packets", n)
					}
				})
			})
		}
	}
}

// stays checks that a connection stays on the relay, works, and reports why.
func (l *lab) stays(conns ...*Conn) {
	l.Helper()
	l.exchange(conns[0], conns[1], 256<<10)
	time.Sleep(20 * time.Second)
	l.exchange(conns[0], conns[1], 256<<10)
	for _, c := range conns {
		p := c.Path()
		if p.Kind != Relayed || p.Why != WhyNoAnswer || len(p.Tried) == 0 {
			l.Errorf("path %+v, want the relay's for lack of an answer", p)
		}
		for _, pair := range p.Tried {
			if pair.Probes == 0 || pair.RTT != 0 {
				l.Errorf("tried %v with %d probes", pair, pair.Probes)
			}
		}
	}
}
