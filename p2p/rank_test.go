package p2p

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/netmon"
	"github.com/quicway/quicway/internal/test/nettest"
)

func hostAddr(iface, addr string, role netmon.Role) netmon.Address {
	return netmon.Address{Interface: iface, Addr: netip.MustParseAddr(addr), Role: role}
}

// manyOf returns n addresses, more than a host may tell.
func manyOf(n int, iface, addr string, role netmon.Role) []netmon.Address {
	var list []netmon.Address
	for i := range n {
		name := iface
		if strings.Contains(name, "%") {
			name = fmt.Sprintf(name, i)
		}
		list = append(list, hostAddr(name, fmt.Sprintf(addr, 17+i), role))
	}
	return list
}

// candidates returns the addresses that the peer is told, with room for the one that the
// relay sees.
func (l *localAddresses) candidates() []candidate {
	all := l.all()
	return all[:min(len(all), maxCandidates-1)]
}

// TestRankOfAddresses checks that a host with many addresses tells those at which a peer is
// most likely to reach it.
func TestRankOfAddresses(t *testing.T) {
	eth := hostAddr("eth0", "192.168.1.2", netmon.Uplink)
	lan := hostAddr("lan0", "10.7.7.7", netmon.Plain)
	for name, test := range map[string]struct {
		list []netmon.Address
		told []string
	}{
		"bridges":           {append(manyOf(14, "br-%04x", "172.%d.0.1", netmon.Inner), eth, lan), []string{"192.168.1.2", "10.7.7.7"}},
		"without roles":     {append(manyOf(14, "docker%d", "172.%d.0.1", netmon.Plain), hostAddr("eth0", "192.168.1.2", netmon.Plain)), []string{"192.168.1.2"}},
		"privacy addresses": {append(manyOf(20, "eth0", "2001:db8::%d", netmon.Uplink), eth, lan), []string{"192.168.1.2", "10.7.7.7", "2001:db8::17"}},
		"two families": {append(manyOf(20, "p%d", "2001:db8::%d", netmon.Plain), manyOf(20, "q%d", "10.%d.0.1", netmon.Plain)...),
			[]string{"2001:db8::17", "2001:db8::18", "10.17.0.1", "10.18.0.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				own := l.anywhere(func(c *Config) { c.list = func() ([]netmon.Address, error) { return test.list, nil } }).openLocals().candidates()
				own = withObserved(own, netip.MustParseAddrPort("203.0.113.1:1"))
				if len(own) > maxCandidates || own[0].kind != ObservedCandidate {
					l.Errorf("told: %v", own)
				}
				told := make(map[string]bool)
				for _, c := range own {
					told[c.addr.Addr().String()] = true
				}
				for _, want := range test.told {
					if !told[want] {
						l.Errorf("%s is not told: %v", want, own)
					}
				}
			})
		})
	}
}

// TestLocalInterfaces checks that addresses of excluded interfaces are not told.
func TestLocalInterfaces(t *testing.T) {
	runLab(t, func(l *lab) {
		own := l.anywhere(func(c *Config) {
			c.list = func() ([]netmon.Address, error) {
				return []netmon.Address{hostAddr("eth0", "192.168.1.2", netmon.Uplink), hostAddr("tun0", "10.8.0.2", netmon.Uplink)}, nil
			}
			c.LocalInterfaces = func(name string) bool { return name != "tun0" }
		}).openLocals().candidates()
		if len(own) != 1 || own[0].addr.Addr().String() != "192.168.1.2" {
			l.Errorf("told: %v", own)
		}
	})
}

// anywhere makes an endpoint that is bound to no address.
func (l *lab) anywhere(change func(*Config)) *Endpoint {
	l.Helper()
	conf := &Config{Relay: l.relay(), DisablePortMapping: true}
	change(conf)
	node := nettest.NewNode()
	node.Plug("eth0", l.net, "198.51.100.200/24", "2001:db8:9::200/64")
	e, err := NewEndpoint(conf, node.Listen("0.0.0.0:1000"), node.Listen("[::]:1000"))
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		if err := e.Close(); err != nil {
			l.Errorf("close endpoint: %v", err)
		}
		time.Sleep(time.Second)
	})
	return e
}
