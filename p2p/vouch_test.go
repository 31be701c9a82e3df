package p2p

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/relay"
)

// strangeAddr is the address of a host that is no relay.
const strangeAddr = "203.0.113.9:53"

// strange counts the packets to that host.
func (l *lab) strange() *atomic.Int64 {
	var n atomic.Int64
	l.net.Filter(func(p nettest.Packet) bool {
		if p.To.String() == strangeAddr {
			n.Add(1)
		}
		return true
	})
	return &n
}

// TestOfferNamesStranger checks that an offer from a mailbox, which anybody may leave, leads to
// a host that the offer alone names as a relay only if the relay of the mailbox vouches for
// that host, or Config.OfferRelays allows it, and once at most.
func TestOfferNamesStranger(t *testing.T) {
	always := func(yes bool) func(netip.AddrPort) bool { return func(netip.AddrPort) bool { return yes } }
	for name, test := range map[string]struct {
		member  string
		policy  func(netip.AddrPort) bool
		follows bool
	}{
		"nobody vouches":                 {fleetAddrs[1], nil, false},
		"the relay vouches":              {strangeAddr, nil, true},
		"it is allowed":                  {fleetAddrs[1], always(true), true},
		"the relay vouches; not allowed": {strangeAddr, always(false), false},
	} {
		t.Run(name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				if err := l.server.SetMembers([]relay.Member{{Addr: test.member}}); err != nil {
					l.Fatal(err)
				}
				sent := l.strange()
				x, y := l.host(nil), l.host(func(c *Config) { c.OfferRelays = test.policy })
				go y.Accept(l.Context())
				offer, _ := l.offer(x, y.ID())
				offer.relay.Addr, offer.session = strangeAddr, control.NewSessionID()
				if err := x.putOfferAt(l.Context(), x.conf.Relay, y.ID(), offer); err != nil {
					l.Fatal(err)
				}
				time.Sleep(20 * time.Second)
				first := sent.Load()
				if (first > 0) != test.follows {
					l.Errorf("%d packets to a host that is no relay", first)
				}
				time.Sleep(time.Minute)
				if later := sent.Load() - first; later > 0 {
					l.Errorf("%d packets after the first attempt", later)
				}
			})
		})
	}
}

// TestMayFollow checks which relays an offer from a mailbox may name.
func TestMayFollow(t *testing.T) {
	runLab(t, func(l *lab) {
		if err := l.server.SetMembers([]relay.Member{{Addr: "b.test:1"}}); err != nil {
			l.Fatal(err)
		}
		from, own := l.relay(), Relay{Addr: "own.test:1", Pin: someID(t)}
		policy := func(netip.AddrPort) bool { return true }
		for name, test := range map[string]struct {
			named  Relay
			policy func(netip.AddrPort) bool
			want   bool
		}{
			"a member":                     {Relay{Addr: "b.test:1", Pin: from.Pin}, nil, true},
			"a member, with another key":   {Relay{Addr: "b.test:1", Pin: own.Pin}, nil, false},
			"a member, without a key":      {Relay{Addr: "b.test:1"}, nil, false},
			"no member":                    {Relay{Addr: "c.test:1", Pin: from.Pin}, nil, false},
			"no member, with policy":       {Relay{Addr: "c.test:1", Pin: from.Pin}, policy, true},
			"one of this host's own":       {own, nil, true},
			"own address, but another key": {Relay{Addr: own.Addr, Pin: from.Pin}, nil, false},
			"the same relay":               {from, nil, false},
			"the same relay, with policy":  {from, policy, false},
		} {
			x := l.host(func(c *Config) { c.Relays, c.OfferRelays = []Relay{own}, test.policy })
			if got, err := x.mayFollow(l.Context(), from, test.named); got != test.want || err != nil {
				t.Errorf("%s: %v, %v, want %v", name, got, err, test.want)
			}
		}
	})
}

// TestMembersAreAskedSeldom checks that a relay is asked for its members once a minute, and
// that a relay that does not answer has not said anything.
func TestMembersAreAskedSeldom(t *testing.T) {
	runLab(t, func(l *lab) {
		x, to := l.host(nil), l.relay()
		to.Addr = fleetAddrs[1]
		follows := func(want bool) {
			l.Helper()
			if got, err := x.mayFollow(l.Context(), l.relay(), to); got != want || err != nil {
				l.Errorf("%v, %v, want %v", got, err, want)
			}
		}
		follows(false)
		if err := l.server.SetMembers([]relay.Member{{Addr: to.Addr}}); err != nil {
			l.Fatal(err)
		}
		follows(false)
		time.Sleep(vouchedFor)
		follows(true)
		l.net.Outage(time.Hour)
		follows(true)
		time.Sleep(vouchedFor)
		if got, err := x.mayFollow(l.Context(), l.relay(), to); got || !errors.Is(err, ErrRelayUnreachable) {
			l.Errorf("without an answer: %v, %v", got, err)
		}
	})
}

// TestStrangersRelay checks that a relay that only an offer names sends this host nowhere when
// it drains.
func TestStrangersRelay(t *testing.T) {
	runFleet(t, 1, func(f *fleet) {
		r, _, end := f.stranger(1)
		defer end()
		sent := f.strange()
		x, y := f.host(func(c *Config) { c.Relay = r }), f.host(nil)
		_, b := f.connect(x, y)
		client := b.link.leg().client
		client.drains(client.present(), []control.Member{{Addr: strangeAddr}})
		time.Sleep(time.Minute)
		if n, relays := sent.Load(), y.Relays(); n > 0 || len(relays) != 1 {
			f.Errorf("%d packets to a host that is no relay; relays %+v", n, relays)
		}
	})
}

// TestMembersAfterCancel checks that a caller that gives up does not decide for others.
func TestMembersAfterCancel(t *testing.T) {
	runLab(t, func(l *lab) {
		x, to := l.host(nil), l.relay()
		to.Addr = fleetAddrs[1]
		if err := l.server.SetMembers([]relay.Member{{Addr: to.Addr}}); err != nil {
			l.Fatal(err)
		}
		ctx, cancel := context.WithCancel(l.Context())
		cancel()
		if got, err := x.mayFollow(ctx, l.relay(), to); got || !errors.Is(err, context.Canceled) {
			l.Errorf("canceled: %v, %v", got, err)
		}
		if got, err := x.mayFollow(l.Context(), l.relay(), to); !got || err != nil {
			l.Errorf("then: %v, %v, want true", got, err)
		}
	})
}
