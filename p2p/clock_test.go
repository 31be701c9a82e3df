package p2p

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/netmon"
)

// TestClockOfAccepter checks that an offer from the mailbox is accepted whatever the
// clocks of the peers say, and any other offer if the clocks differ by at most five
// minutes.
func TestClockOfAccepter(t *testing.T) {
	for _, off := range []time.Duration{-time.Hour, -3 * time.Minute, 3 * time.Minute, 48 * time.Hour} {
		runLab(t, func(l *lab) {
			alice, bob := l.host(nil), l.host(nil)
			ctx, cancel := context.WithTimeout(l.Context(), 20*time.Second)
			defer cancel()
			accepted := make(chan error, 1)
			go func() {
				_, err := bob.Accept(ctx)
				accepted <- err
			}()
			_, err := alice.Dial(ctx, bob.ID(), &DialConfig{Deliver: func(ctx context.Context, o Offer) error {
				o.expires = o.expires.Add(off)
				return alice.putOffer(ctx, alice.conf.Relay, bob.ID(), o)
			}})
			if err := errors.Join(err, <-accepted); err != nil {
				l.Errorf("mailbox, clock off by %v: %v", off, err)
			}
			offer, dialed := l.offer(alice, bob.ID())
			offer.expires = offer.expires.Add(off)
			_, err = bob.AcceptOffer(ctx, offer)
			if good := off.Abs() < clockSkew; (err == nil) != good {
				l.Errorf("by hand, clock off by %v: %v", off, err)
			} else if good {
				<-dialed
			}
		})
	}
}

// TestOfferRelaysAreChecked checks that an offer cannot make this host connect to an
// address that is not allowed.
func TestOfferRelaysAreChecked(t *testing.T) {
	list := func() ([]netmon.Address, error) {
		return []netmon.Address{hostAddr("eth0", "192.168.1.2", netmon.Uplink)}, nil
	}
	anyRelay := func(netip.AddrPort) bool { return true }
	for _, test := range []struct {
		addr    string
		policy  func(netip.AddrPort) bool
		allowed bool
	}{
		{"127.0.0.1:4433", nil, false},
		{"[::1]:4433", nil, false},
		{"[::ffff:127.0.0.1]:4433", nil, false},
		{"169.254.169.254:80", nil, false},
		{"[fe80::1%1]:4433", nil, false},
		{"10.0.0.1:4433", nil, false},
		{"[fd00::1]:4433", nil, false},
		{"0.0.0.0:4433", nil, false},
		{"inside.test:4433", nil, false},
		{"192.168.1.77:4433", nil, true},
		{"203.0.113.9:4433", nil, true},
		{"203.0.113.9:4433", func(netip.AddrPort) bool { return false }, false},
		{"127.0.0.1:4433", anyRelay, true},
		{"10.0.0.1:4433", anyRelay, true},
	} {
		runLab(t, func(l *lab) {
			n := names{"ip6": {"fd00::1"}, "ip4": {"10.0.0.1", "127.0.0.1"}}
			bob := l.anywhere(func(c *Config) { c.list, c.lookup, c.OfferRelays = list, n.lookup, test.policy })
			offer, _ := l.offer(l.host(nil), bob.ID())
			offer.relay.Addr = test.addr
			ctx, cancel := context.WithTimeout(l.Context(), 20*time.Second)
			defer cancel()
			before := bob.mux.all()[0].Stats().TxPackets + bob.mux.all()[1].Stats().TxPackets
			_, err := bob.AcceptOffer(ctx, offer)
			if errors.Is(err, ErrRelayNotAllowed) == test.allowed {
				l.Errorf("%s: %v", test.addr, err)
			}
			if sent := bob.mux.all()[0].Stats().TxPackets + bob.mux.all()[1].Stats().TxPackets - before; !test.allowed && sent > 0 {
				l.Errorf("%s: %d packets were sent", test.addr, sent)
			}
		})
	}
}

// TestPeerIsAbsent checks that dialing an absent peer returns ErrPeerAbsent.
func TestPeerIsAbsent(t *testing.T) {
	runLab(t, func(l *lab) {
		alice := l.host(func(c *Config) { c.OfferTTL = 30 * time.Second })
		if _, err := alice.Dial(l.Context(), PeerID{1}, nil); !errors.Is(err, ErrPeerAbsent) || !errors.Is(err, ErrOfferExpired) {
			l.Errorf("expired: %v", err)
		}
		ctx, cancel := context.WithTimeout(l.Context(), 10*time.Second)
		defer cancel()
		if _, err := alice.Dial(ctx, PeerID{1}, nil); !errors.Is(err, ErrPeerAbsent) || !errors.Is(err, context.DeadlineExceeded) {
			l.Errorf("deadline: %v", err)
		}
		refuses := l.host(func(c *Config) { c.AllowPeer = func(PeerID) bool { return false } })
		go refuses.Accept(l.Context())
		_, err := alice.Dial(l.Context(), refuses.ID(), nil)
		if err == nil {
			l.Error("connected")
		}
	})
}

// TestRemoteAddrNamesPeer checks RemoteAddr, on the relay and on a direct path.
func TestRemoteAddrNamesPeer(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
		for range 2 {
			for c, peer := range map[*Conn]*Conn{a: b, b: a} {
				addr, ok := c.RemoteAddr().(PeerAddr)
				if !ok || addr.String() != peer.endpoint.ID().String() || addr.Kind != c.Path().Kind || addr.Via != c.Path().Remote {
					l.Errorf("%v", c.RemoteAddr())
				}
			}
			l.until(Direct, a, b)
		}
	})
}
