package p2p

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/relay"
)

// forge has a side receive a packet of the relay's own, with one of the side's connection IDs.
func (f *fleet) forge(i int, c *Conn) {
	l := c.link
	l.mu.Lock()
	id := l.known[len(l.known)-1]
	l.mu.Unlock()
	b := id.AppendTo([]byte{shortHeader})
	b = append(b, make([]byte, 30)...)
	l.receive(&udp.Message{Data: b, Remote: netip.MustParseAddrPort(fleetAddrs[i])})
}

// swallow has a relay forward nothing, though it answers its clients.
func (f *fleet) swallow(i int, conns ...*Conn) {
	f.net.Filter(func(p nettest.Packet) bool {
		if p.From.String() != fleetAddrs[i] || len(p.Data) < envelopeSize {
			return true
		}
		id, err := cid.IDFrom(p.Data[1:envelopeSize])
		if err != nil {
			return true
		}
		for _, c := range conns {
			m := c.link.mux
			m.mu.RLock()
			l := m.links[id]
			m.mu.RUnlock()
			if l != nil {
				return false
			}
		}
		return true
	})
}

// TestForgedPacketsTurnNobody checks that a standby relay cannot take a connection over by
// packets of its own, whether the connection is idle or in use.
func TestForgedPacketsTurnNobody(t *testing.T) {
	for name, busy := range map[string]bool{"idle": false, "in use": true} {
		t.Run(name, func(t *testing.T) {
			runFleet(t, 2, func(f *fleet) {
				a, b := f.pair()
				var pulse *beat
				if busy {
					pulse = f.beat(a, b)
				} else {
					time.Sleep(20 * time.Second)
				}
				for range 20 {
					f.forge(1, a)
					f.forge(1, b)
					time.Sleep(20 * time.Millisecond)
				}
				time.Sleep(time.Second)
				f.turns(0, a, b)
				if busy {
					f.end(pulse)
				}
			})
		})
	}
}

// directPair is pair for a connection on a direct path.
func (f *fleet) directPair() (a, b *Conn) {
	f.Helper()
	direct := func(c *Config) { f.several(c); c.Policy = PreferDirect }
	x, y := f.host(direct), f.host(direct)
	time.Sleep(time.Second)
	a, b = f.connect(x, y)
	f.until(Direct, a, b)
	f.standby(1)
	return a, b
}

// TestForgedPacketsOnDirectPath checks that packets of a standby relay turn neither side of a
// connection on a direct path, while packets to the relay that carries are unanswered.
func TestForgedPacketsOnDirectPath(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		a, b := f.directPair()
		pulse := f.beat(a, b)
		time.Sleep(time.Second)
		for range 20 {
			for _, c := range []*Conn{a, b} {
				c.link.activity.sent(1)
				f.forge(1, c)
			}
			time.Sleep(100 * time.Millisecond)
		}
		f.turns(0, a, b)
		f.end(pulse)
	})
}

// TestForgedPacketsAreNoProgress checks that a connection which has turned to a relay that
// forwards nothing goes back, though that relay answers and sends packets of its own.
func TestForgedPacketsAreNoProgress(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		a, b := f.pair()
		pulse := f.beat(a, b)
		time.Sleep(time.Second)
		f.swallow(1, a, b)
		done := make(chan struct{})
		forged := make(chan struct{})
		go func() {
			defer close(forged)
			for {
				select {
				case <-done:
					return
				case <-time.After(300 * time.Millisecond):
				}
				f.forge(1, a)
				f.forge(1, b)
			}
		}()
		f.cut(0, 0) // for a moment
		time.Sleep(600 * time.Millisecond)
		f.mend(0)
		f.turned(1, died, a, b)
		time.Sleep(15 * time.Second)
		for _, c := range []*Conn{a, b} {
			if relay := c.Path().Relay; relay != fleetAddrs[0] {
				f.Errorf("the connection is at %s", relay)
			}
		}
		close(done)
		<-forged
		f.end(pulse)
		f.exchange(a, b, 10_000)
	})
}

// TestKeepAliveInSpiteOfForgedPackets checks that packets of a relay that does not carry do
// not keep an idle connection from sending keepalives.
func TestKeepAliveInSpiteOfForgedPackets(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		a, b := f.pair()
		for range 60 {
			time.Sleep(2 * time.Second)
			f.alive(a, b)
			f.forge(1, a)
			f.forge(1, b)
		}
		f.alive(a, b)
	})
}

// TestTurnsThatCross checks that both sides agree on a relay when both have turned at the same
// time.
func TestTurnsThatCross(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		a, b := f.pair()
		pulse := f.beat(a, b)
		time.Sleep(time.Second)
		standby := b.link.routes.Load().others[0].number
		a.queueFrame(numbered(frameTurned, standby)) // and back, within a round trip
		a.queueFrame(numbered(frameTurned, 0))
		time.Sleep(5 * time.Second)
		f.turns(2, a, b)
		if x, y := a.Path().Relay, b.Path().Relay; x != y {
			f.Errorf("the sides are at %s and %s", x, y)
		}
		f.end(pulse)
	})
}

// stranger starts a relay of another operator, which notes the access tokens that it is shown.
// end stops it.
func (f *fleet) stranger(i int) (r Relay, tokens func() []string, end func()) {
	f.Helper()
	var mu sync.Mutex
	var shown []string
	server, err := relay.New(&relay.Config{
		Secret: bytes.Repeat([]byte{7}, 32),
		TTL:    20 * time.Second,
		Authorize: func(_ context.Context, req relay.AuthRequest) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			shown = append(shown, req.Token)
			if req.Token != "stranger" {
				return "", relay.ErrUnauthorized
			}
			return "", nil
		},
	}, f.net.Listen(fleetAddrs[i]))
	if err != nil {
		f.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Run(context.Background()) }()
	pin, err := ParsePeerID(server.Pin())
	if err != nil {
		f.Fatal(err)
	}
	tokens = func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(shown)
	}
	return Relay{Addr: fleetAddrs[i], Pin: pin, Token: "stranger"}, tokens, func() { f.unserve(server, served) }
}

// TestStandbyOfAnotherOperator checks that a relay of another operator gets no token of the
// first one's, and that the accepter uses it only if it is one of its own relays.
func TestStandbyOfAnotherOperator(t *testing.T) {
	for name, own := range map[string]bool{"configured": true, "not configured": false} {
		t.Run(name, func(t *testing.T) {
			runFleet(t, 1, func(f *fleet) {
				r, tokens, end := f.stranger(1)
				defer end()
				with := func(c *Config) { c.Relays = []Relay{r} }
				x, y := f.host(with), f.host(func(c *Config) {
					if own {
						with(c)
					}
				})
				time.Sleep(time.Second)
				a, b := f.connect(x, y)
				time.Sleep(10 * time.Second)
				for _, token := range tokens() {
					if token != "stranger" && token != "" {
						f.Errorf("the relay was shown %q", token)
					}
				}
				f.cut(0, 0)
				time.Sleep(3 * time.Second)
				if !own {
					f.turns(0, a, b)
					f.mend(0)
				}
				f.exchange(a, b, 10_000)
				if own {
					f.turned(1, died, a, b)
				}
			})
		})
	}
}
