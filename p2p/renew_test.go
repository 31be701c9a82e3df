package p2p

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// mobile makes an endpoint that opens its own sockets, each time with another port.
func (l *lab) mobile(change func(*Config)) *host {
	l.Helper()
	l.hosts++
	h, port := &host{}, 1000
	addr := fmt.Sprintf("198.51.100.%d", l.hosts)
	conf := &Config{Relay: l.relay(), DisablePortMapping: true}
	conf.listen = func() ([]net.PacketConn, error) {
		port++
		h.conn = l.net.Listen(fmt.Sprintf("%s:%d", addr, port))
		return []net.PacketConn{h.conn}, nil
	}
	if change != nil {
		change(conf)
	}
	e, err := NewEndpoint(conf)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		if err := e.Close(); err != nil {
			l.Errorf("close endpoint: %v", err)
		}
	})
	h.Endpoint = e
	return h
}

// bury has a router drop all packets from or to an address.
func (l *lab) bury(addr netip.AddrPort) {
	l.net.Filter(func(p nettest.Packet) bool { return p.From != addr && p.To != addr })
}

// TestDeadPort checks that an endpoint replaces its sockets when nothing gets through
// from their ports, and that connections survive, direct ones as well.
func TestDeadPort(t *testing.T) {
	for _, policy := range []PathPolicy{RelayOnly, PreferDirect} {
		for _, who := range []string{"dialer", "accepter"} {
			t.Run(fmt.Sprint(who, policy), func(t *testing.T) {
				runLab(t, func(l *lab) {
					conf := func(c *Config) { c.Policy = policy }
					alice, bob := l.mobile(conf), l.mobile(conf)
					a, b := l.connect(alice, bob)
					a2, b2 := l.connect(alice, bob)
					moving := alice
					if who == "accepter" {
						moving = bob
					}
					if policy == PreferDirect {
						l.until(Direct, a, b, a2, b2)
					}
					time.Sleep(5 * time.Second)
					first, second := l.beat(a, b), l.beat(a2, b2)
					time.Sleep(time.Second)
					old := moving.LocalAddr()
					l.bury(old)
					time.Sleep(20 * time.Second)
					if moving.LocalAddr() == old {
						l.Fatal("the endpoint is still at its old port")
					}
					if policy == PreferDirect {
						l.until(Direct, a, b, a2, b2)
					}
					for _, beat := range []*beat{first, second} {
						beat.reset()
						time.Sleep(2 * time.Second)
						if pause := beat.reset(); pause > time.Second {
							l.Errorf("nothing came for %v", pause)
						}
						l.end(beat)
					}
				})
			})
		}
	}
}

// TestNetworkChanged checks that NetworkChanged replaces the sockets at once.
func TestNetworkChanged(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.mobile(nil), l.mobile(nil)
		a, b := l.connect(alice, bob)
		l.until(Direct, a, b)
		beat := l.beat(a, b)
		time.Sleep(time.Second)
		for range 3 {
			beat.reset()
			old := alice.LocalAddr()
			l.bury(old)
			alice.NetworkChanged()
			time.Sleep(5 * time.Second)
			if pause := beat.reset(); pause > 2*time.Second {
				l.Errorf("nothing came for %v", pause)
			}
			if alice.LocalAddr() == old {
				l.Error("the endpoint is still at its old port")
			}
		}
		l.until(Direct, a, b)
		l.end(beat)
		_ = bob.Close()
		bob.NetworkChanged() // does nothing
	})
}

// TestPortIsKept checks that an endpoint keeps its sockets if it receives anything, or
// if the caller has opened them.
func TestPortIsKept(t *testing.T) {
	runLab(t, func(l *lab) {
		alice := l.mobile(nil)
		a, b := l.connect(alice, l.public().peer(nil))
		l.until(Direct, a, b)
		before := alice.LocalAddr()
		l.stopRelay()
		time.Sleep(time.Minute)
		l.startRelay()
		time.Sleep(10 * time.Second)
		l.alive(a, b)
		if alice.LocalAddr() != before {
			l.Error("a relay that is gone makes an endpoint leave its port, though its peer is there")
		}
		given := l.public().peer(nil)
		c, d := l.connect(given, alice)
		given.NetworkChanged()
		time.Sleep(10 * time.Second)
		l.exchange(c, d, 1<<16)
	})
}
