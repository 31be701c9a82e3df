package p2p

import (
	"context"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/relay"
)

// TestAccepterFollowsDrain checks that an endpoint with a single relay, which waits in Accept,
// waits at the relay that this one names when it drains, and is found there when the first
// relay is gone.
func TestAccepterFollowsDrain(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		x, y := f.host(f.several), f.host(nil)
		if err := f.servers[0].SetMembers([]relay.Member{{Addr: fleetAddrs[1]}}); err != nil {
			f.Fatal(err)
		}
		accepted := f.accept(y, 2)
		time.Sleep(time.Second)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() { _ = f.servers[0].Drain(ctx) }()
		time.Sleep(time.Second)
		f.dialed(x, y, accepted)
		f.kill(0)
		time.Sleep(time.Minute)
		f.dialed(x, y, accepted)
	})
}

// accept has a host accept n connections through the mailbox.
func (f *fleet) accept(h *host, n int) <-chan result {
	accepted := make(chan result, n)
	go func() {
		for range n {
			c, err := h.Accept(f.Context())
			accepted <- result{c, err}
		}
	}()
	return accepted
}

// dialed dials through the mailbox, and checks that the connection carries data.
func (f *fleet) dialed(dialer, accepter *host, accepted <-chan result) {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), 20*time.Second)
	defer cancel()
	a, err := dialer.Dial(ctx, accepter.ID(), nil)
	if err != nil {
		f.Fatal(err)
	}
	r := <-accepted
	if r.err != nil {
		f.Fatal(r.err)
	}
	f.exchange(a, r.conn, 1000)
}

// full starts a relay that has room for one session, and sends others to another relay.
func (f *fleet) full(addr, to string) (stop func()) {
	f.Helper()
	conf := &relay.Config{Secret: relaySecret, TTL: 20 * time.Second, MaxSessions: 1, MaxSessionsPerAccount: 1000, Members: []relay.Member{{Addr: to}}}
	server, err := relay.New(conf, f.net.Listen(addr))
	if err != nil {
		f.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Run(context.Background()) }()
	return func() { f.unserve(server, served) }
}

// The addresses of relays that are full.
const fullA, fullB = "192.0.2.11:4433", "192.0.2.12:4433"

// TestFullRelayAndMailbox checks that an offer arrives when a relay that is full has sent the
// dialer to another one, at which nobody waits.
func TestFullRelayAndMailbox(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		defer f.full(fullA, fleetAddrs[1])()
		only := func(c *Config) { c.Relay.Addr = fullA }
		x, y := f.host(only), f.host(only)
		accepted := f.accept(y, 2)
		f.dialed(x, y, accepted)
		f.dialed(x, y, accepted)
		if n := f.servers[1].Stats().Legs; n != 2 {
			f.Errorf("the other relay has %d legs, want 2", n)
		}
	})
}

// TestFullRelaysNameEachOther checks that a dial uses a third relay when two are full, each of
// which sends to the other one.
func TestFullRelaysNameEachOther(t *testing.T) {
	runFleet(t, 1, func(f *fleet) {
		defer f.full(fullA, fullB)()
		defer f.full(fullB, fullA)()
		f.link(0, 0, nettest.Conditions{Delay: 50 * time.Millisecond})
		x := f.host(func(c *Config) {
			for _, addr := range []string{fullA, fullB} {
				r := c.Relay
				r.Addr = addr
				c.Relays = append(c.Relays, r)
			}
			c.Standby = NoStandby
		})
		y := f.host(nil)
		time.Sleep(time.Second)
		for range 3 {
			a, b := f.connect(x, y)
			f.exchange(a, b, 1000)
		}
	})
}
