package p2p

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/relay"
)

// fleetAddrs are the addresses of the relays of a fleet.
var fleetAddrs = []string{relayAddr, "192.0.2.2:4433", "192.0.2.3:4433", "192.0.2.4:4433", "192.0.2.5:4433"}

// fleetHosts is the largest number of hosts in a test with a fleet.
const fleetHosts = 3

// fleet is a lab with several relays, which share a secret.
type fleet struct {
	*lab
	servers []*relay.Server // nil: killed
	served  []chan error
}

func runFleet(t *testing.T, relays int, test func(*fleet)) {
	t.Helper()
	runLab(t, func(l *lab) {
		f := &fleet{lab: l, servers: []*relay.Server{l.server}, served: []chan error{l.served}}
		for _, addr := range fleetAddrs[1:relays] {
			s, served := l.serve(addr)
			f.servers, f.served = append(f.servers, s), append(f.served, served)
		}
		test(f)
		for i := range f.servers {
			f.revive(i)
			if i > 0 {
				f.unserve(f.servers[i], f.served[i])
			}
		}
		l.server, l.served = f.servers[0], f.served[0] // which the lab stops
	})
}

// at is the relay with a number, for peers.
func (f *fleet) at(i int) Relay {
	r := f.relay()
	r.Addr = fleetAddrs[i]
	return r
}

// several configures a host to use all relays.
func (f *fleet) several(c *Config) {
	for i := range f.servers[1:] {
		c.Relays = append(c.Relays, f.at(i+1))
	}
}

// link sets the conditions between a relay and a host, or all hosts if that is 0.
func (f *fleet) link(i, host int, c nettest.Conditions) {
	for h := 1; h <= fleetHosts; h++ {
		if host == 0 || host == h {
			f.net.Link(netip.MustParseAddrPort(fleetAddrs[i]).Addr().String(), fmt.Sprintf("198.51.100.%d", h), c)
		}
	}
}

// cut has all packets lost between a relay and a host, or all hosts if that is 0.
func (f *fleet) cut(i, host int) { f.link(i, host, nettest.Conditions{Loss: 1}) }

// mend ends cut.
func (f *fleet) mend(i int) {
	for h := 1; h <= fleetHosts; h++ {
		f.net.Mend(netip.MustParseAddrPort(fleetAddrs[i]).Addr().String(), fmt.Sprintf("198.51.100.%d", h))
	}
}

// kill ends a relay without a word, and with all its state.
func (f *fleet) kill(i int) {
	f.Helper()
	f.cut(i, 0)
	f.unserve(f.servers[i], f.served[i])
	f.servers[i] = nil
}

// revive starts a relay that was killed.
func (f *fleet) revive(i int) {
	f.Helper()
	if f.servers[i] == nil {
		f.servers[i], f.served[i] = f.serve(fleetAddrs[i])
		f.mend(i)
	}
}

// pair connects two hosts, and waits until the connection has a standby relay.
func (f *fleet) pair() (a, b *Conn) {
	f.Helper()
	x, y := f.host(f.several), f.host(f.several)
	time.Sleep(time.Second) // the relays are measured
	a, b = f.connect(x, y)
	f.standby(1)
	return a, b
}

// standby waits until both legs of the only connection are registered at a relay, and the
// dialer knows it.
func (f *fleet) standby(i int) {
	f.Helper()
	for deadline := time.Now().Add(time.Minute); f.servers[i].Stats().Legs != 2; {
		if time.Now().After(deadline) {
			f.Fatalf("relay %d has %d legs, want 2", i, f.servers[i].Stats().Legs)
		}
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(500 * time.Millisecond)
}

// turned checks that both sides send through a relay, and why they do.
func (f *fleet) turned(i int, why []PathReason, conns ...*Conn) {
	f.Helper()
	for _, c := range conns {
		p := c.Path()
		if p.Relay != fleetAddrs[i] || p.Remote.String() != fleetAddrs[i] || !slices.Contains(why, p.Why) {
			f.Errorf("path %+v, want relay %s for one of %v", p, fleetAddrs[i], why)
		}
	}
}

// turns checks how often both sides have turned.
func (f *fleet) turns(most uint64, conns ...*Conn) {
	f.Helper()
	f.alive(conns...)
	for _, c := range conns {
		if n := c.Stats().RelayChanges; n > most {
			f.Errorf("%d turns, want at most %d", n, most)
		}
	}
}

var died = []PathReason{WhyRelayDied, WhyPeerTurned}

// TestRelayDies checks that a connection in use goes on through its standby relay after about
// half a second when its relay dies, for both sides or for one of them, and that it has
// another standby relay after that.
func TestRelayDies(t *testing.T) {
	for _, test := range []struct {
		name  string
		delay time.Duration // one way to a relay, a quarter of the round trip
		who   int           // for whom it dies; 0: both
		most  time.Duration // until the turn, and up to four round trips until what was lost is repeated
	}{
		{"for both", 10 * time.Millisecond, 0, 700 * time.Millisecond},
		{"for the dialer", 10 * time.Millisecond, 1, 750 * time.Millisecond},
		{"for the accepter", 10 * time.Millisecond, 2, 750 * time.Millisecond},
		{"far away", 50 * time.Millisecond, 0, time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			runFleet(t, 3, func(f *fleet) {
				f.net.Set(nettest.Conditions{Delay: test.delay})
				a, b := f.pair()
				beat := f.beat(a, b)
				time.Sleep(time.Second)
				beat.reset()
				f.cut(0, test.who)
				time.Sleep(1500 * time.Millisecond)
				if pause := beat.reset(); pause > test.most {
					f.Errorf("silent for %v, want at most %v", pause, test.most)
				}
				f.turned(1, died, a, b)
				f.end(beat)
				f.standby(2)
				f.turns(1, a, b)
				f.cut(1, 0) // the next one
				f.exchange(a, b, 10_000)
				f.turned(2, died, a, b)
			})
		})
	}
}

// TestRelayDiesInTransfer checks that all bytes of a transfer arrive when the relay is
// killed in the middle.
func TestRelayDiesInTransfer(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		a, b := f.pair()
		time.AfterFunc(100*time.Millisecond, func() { f.cut(0, 0) })
		began := time.Now()
		f.exchange(a, b, 2<<20)
		if after := time.Since(began); after > 5*time.Second {
			f.Errorf("took %v", after)
		}
		f.turned(1, died, a, b)
	})
}

// TestRelayIsKilledInTurn checks that a connection survives the death of its relay again and
// again, each with a restart, and is never silent for a second.
func TestRelayIsKilledInTurn(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		a, b := f.pair()
		beat := f.beat(a, b)
		time.Sleep(time.Second)
		beat.reset()
		for i := range 2 {
			f.kill(i % 2)
			time.Sleep(2 * time.Second)
			f.revive(i % 2)
			time.Sleep(5 * time.Second)
			if pause := beat.reset(); pause > time.Second {
				f.Errorf("death %d: silent for %v", i, pause)
			}
		}
		f.end(beat)
		f.turns(2, a, b)
	})
}

// TestRelayDrains checks that a relay that is about to stop costs neither a packet nor more
// than a round trip, and that nothing keeps it from stopping.
func TestRelayDrains(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		a, b := f.pair()
		beat := f.beat(a, b)
		time.Sleep(time.Second)
		beat.reset()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		err := f.servers[0].Shutdown(ctx)
		if serve := <-f.served[0]; err != nil || !errors.Is(serve, relay.ErrClosed) {
			f.Errorf("shutdown: %v, %v", err, serve)
		}
		f.servers[0] = nil
		if pause := beat.reset(); pause > 60*time.Millisecond {
			f.Errorf("silent for %v, want at most a round trip and 20 ms", pause)
		}
		f.end(beat)
		f.turned(1, []PathReason{WhyRelayDrains, WhyPeerTurned}, a, b)
		for _, c := range []*Conn{a, b} {
			if n := c.ConnectionStats().PacketsLost; n != 0 {
				f.Errorf("%d packets lost", n)
			}
		}
	})
}

// TestNoTurn checks that a connection stays at its relay while that is slow or the network
// loses packets, as far as another relay would not help.
func TestNoTurn(t *testing.T) {
	for name, test := range map[string]struct {
		disturb func(*fleet)
		most    uint64
	}{
		"slow relay": {func(f *fleet) { f.link(0, 0, nettest.Conditions{Delay: 85 * time.Millisecond}) }, 0},
		"slow network": {func(f *fleet) {
			for i := range f.servers {
				f.link(i, 0, nettest.Conditions{Delay: 500 * time.Millisecond})
			}
		}, 0},
		"slow peer": {func(f *fleet) {
			for i := range f.servers {
				f.link(i, 2, nettest.Conditions{Delay: 500 * time.Millisecond})
			}
		}, 0},
		"outage": {func(f *fleet) { f.net.Outage(5 * time.Second) }, 0},
		"loss":   {func(f *fleet) { f.net.Set(nettest.Conditions{Delay: 10 * time.Millisecond, Loss: 0.3}) }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			runFleet(t, 2, func(f *fleet) {
				a, b := f.pair()
				beat := f.beat(a, b)
				time.Sleep(time.Second)
				test.disturb(f)
				time.Sleep(6 * time.Second)
				f.turns(test.most, a, b)
				f.end(beat)
			})
		})
	}
}

// TestDeadStandby checks that a connection does not turn to a standby relay that is dead,
// and uses it again when both relays were dead and only that one has come back.
func TestDeadStandby(t *testing.T) {
	for name, back := range map[string]int{"the relay comes back": 0, "the standby comes back": 1} {
		t.Run(name, func(t *testing.T) {
			runFleet(t, 2, func(f *fleet) {
				a, b := f.pair()
				f.kill(1)
				beat := f.beat(a, b)
				time.Sleep(3 * time.Second)
				f.turns(0, a, b)
				f.kill(0)
				time.Sleep(4 * time.Second)
				f.turns(0, a, b)
				f.revive(back)
				f.exchange(a, b, 10_000)
				f.turns(uint64(back), a, b)
				f.end(beat)
			})
		})
	}
}

// TestNoStandby checks that a connection works as before if one side takes no part: it has no
// standby relay.
func TestNoStandby(t *testing.T) {
	for _, who := range []int{0, 1} {
		runFleet(t, 2, func(f *fleet) {
			var hosts [2]*host
			for i := range hosts {
				hosts[i] = f.host(func(c *Config) {
					if f.several(c); i == who {
						c.Standby = NoStandby
					}
				})
			}
			time.Sleep(time.Second)
			a, b := f.connect(hosts[0], hosts[1])
			time.Sleep(10 * time.Second)
			f.cut(0, 0)
			time.Sleep(5 * time.Second)
			f.turns(0, a, b)
			f.mend(0)
			f.exchange(a, b, 100_000)
		})
	}
}

// TestRelayDiesOnDirectPath checks that a connection on a direct path changes its relay when
// that dies, so that the way back works.
func TestRelayDiesOnDirectPath(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		direct := func(c *Config) { f.several(c); c.Policy = PreferDirect }
		x, y := f.host(direct), f.host(direct)
		time.Sleep(time.Second)
		a, b := f.connect(x, y)
		f.until(Direct, a, b)
		f.standby(1)
		f.kill(0)
		time.Sleep(30 * time.Second) // the control connections notice
		f.net.Cut("198.51.100.1", "198.51.100.2")
		f.exchange(a, b, 100_000)
		f.until(Relayed, a, b)
		if p := a.Path(); p.Relay != fleetAddrs[1] {
			f.Errorf("path %+v", p)
		}
	})
}

// TestTurnsOnDirectPath checks that turns on a direct path, of which nobody can tell whether
// they help, do not delay a turn when packets need the relay.
func TestTurnsOnDirectPath(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		a, b := f.directPair()
		for i := range 4 {
			f.kill(i % 2)
			time.Sleep(40 * time.Second) // the control connections notice
			f.revive(i % 2)
			f.standby(i % 2)
		}
		pulse := f.beat(a, b)
		time.Sleep(time.Second)
		if n := a.Stats().RelayChanges; n < 4 || a.Path().Kind != Direct {
			f.Fatalf("%d turns, path %+v", n, a.Path())
		}
		pulse.reset()
		f.net.Cut("198.51.100.1", "198.51.100.2")
		f.cut(0, 0)
		time.Sleep(20 * time.Second)
		if pause := pulse.reset(); pause > 2*time.Second {
			f.Errorf("silent for %v", pause)
		}
		f.end(pulse)
	})
}

// TestRelayDiesInHandshake checks that a dial goes on through another relay if the relay is
// killed before the peer has taken the offer.
func TestRelayDiesInHandshake(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		x, y := f.host(f.several), f.host(f.several)
		time.Sleep(time.Second)
		done := make(chan result, 1)
		go func() {
			c, err := x.Dial(f.Context(), y.ID(), nil)
			done <- result{c, err}
		}()
		time.Sleep(500 * time.Millisecond) // the offer is in the mailbox
		f.kill(0)
		b, err := y.Accept(f.Context())
		if err != nil {
			f.Fatal(err)
		}
		r := <-done
		if r.err != nil {
			f.Fatal(r.err)
		}
		f.exchange(r.conn, b, 1000)
		f.turned(1, []PathReason{WhyEstablished}, r.conn, b)
	})
}

// TestGoesHome checks that a connection returns to a relay that is much nearer, after five
// minutes.
func TestGoesHome(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		x, y := f.host(f.several), f.host(f.several)
		far := func() { f.link(1, 0, nettest.Conditions{Delay: 50 * time.Millisecond}) }
		far()
		time.Sleep(time.Second)
		a, b := f.connect(x, y)
		f.standby(1)
		f.kill(0)
		f.exchange(a, b, 1000)
		f.turned(1, died, a, b)
		f.revive(0)
		far()
		time.Sleep(4 * time.Minute)
		f.turned(1, died, a, b)
		time.Sleep(2 * time.Minute)
		f.turned(0, []PathReason{WhyRelayNearer, WhyPeerTurned}, a, b)
		f.exchange(a, b, 1000)
		f.turns(2, a, b)
	})
}

// TestStolenOfferAtStandby checks that nobody who has stolen the offer can register at the
// standby relay in the accepter's place.
func TestStolenOfferAtStandby(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		x, y, thief := f.host(f.several), f.host(f.several), f.host(nil)
		time.Sleep(time.Second)
		offer, dialed := f.offer(x, y.ID())
		b, err := y.AcceptOffer(f.Context(), offer)
		if err != nil {
			f.Fatal(err)
		}
		a := (<-dialed).conn
		client, err := thief.relays.acquire(f.at(1))
		if err != nil {
			f.Fatal(err)
		}
		defer thief.relays.release(client)
		conn, err := client.current(f.Context())
		if err != nil {
			f.Fatal(err)
		}
		for range 20 { // before, while and after the accepter registers
			request := &control.Register{Role: control.Accepter, Key: cid.NewKey()}
			if _, err := conn.register(f.Context(), offer.session, request, offer.join); !errors.Is(err, ErrRelayRefused) {
				f.Fatalf("the thief has registered: %v", err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		f.standby(1)
		f.kill(0)
		f.exchange(a, b, 1000)
		f.turned(1, died, a, b)
	})
}

// TestSparesAreBounded checks that a connection remembers few relays, however many its peer
// names.
func TestSparesAreBounded(t *testing.T) {
	var r lastResort
	for i := range 100 {
		r.note(usedRelay{relay: Relay{Addr: fmt.Sprintf("relay%d.test:1", i)}, number: uint64(i)})
		r.note(usedRelay{relay: Relay{Addr: fmt.Sprintf("relay%d.test:1", i)}, number: uint64(i)}) // again
	}
	if len(r.used) != maxUsed || r.used[0].number != 100-maxUsed {
		t.Errorf("%d relays, the first is %d", len(r.used), r.used[0].number)
	}
}
