package p2p

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/monotime"
	"github.com/quicway/quicway/internal/netmon"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/wire"
)

// beat sends a byte every 20 ms from one side, which the other sends back, and measures the
// longest time without one.
type beat struct {
	mu      sync.Mutex
	last    time.Time
	longest time.Duration
	err     error
	stop    context.CancelFunc
	done    chan struct{}
}

func (l *lab) beat(from, to *Conn) *beat {
	ctx, stop := context.WithCancel(context.Background())
	b := &beat{last: time.Now(), stop: stop, done: make(chan struct{})}
	go mirror(to)
	go b.run(ctx, from)
	return b
}

// mirror sends back what it receives on a stream.
func mirror(c *Conn) {
	s, err := c.AcceptStream(context.Background())
	if err != nil {
		return
	}
	_, _ = io.Copy(s, s)
	_ = s.Close()
}

func (b *beat) run(ctx context.Context, c *Conn) {
	defer close(b.done)
	ctx, stop := context.WithCancel(ctx)
	defer stop() // so that the writer does not outlive the connection
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		b.err = err
		return
	}
	go func() {
		for ctx.Err() == nil {
			if _, err := s.Write([]byte{1}); err != nil {
				return
			}
			sleep(ctx, 20*time.Millisecond)
		}
		_ = s.Close()
	}()
	buf := make([]byte, 1024)
	for {
		_, err := s.Read(buf)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				b.err = err
			}
			return
		}
		b.mu.Lock()
		b.longest = max(b.longest, time.Since(b.last))
		b.last = time.Now()
		b.mu.Unlock()
	}
}

// reset returns the longest pause, and starts again from zero.
func (b *beat) reset() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	longest := max(b.longest, time.Since(b.last))
	b.longest = 0
	return longest
}

func (l *lab) end(b *beat) {
	l.Helper()
	b.stop()
	<-b.done
	if b.err != nil {
		l.Errorf("the stream has broken: %v", b.err)
	}
}

// stallGoal is how long a connection in use may be without packets when its path dies.
const stallGoal = time.Second

// TestPathDies checks that a connection in use continues through the relay within a
// second after the direct path has been cut, and gets a direct path again when possible.
func TestPathDies(t *testing.T) {
	for _, test := range []struct {
		name string
		from func(a, b *Conn) (*Conn, *Conn)
	}{
		{"dialer sends", func(a, b *Conn) (*Conn, *Conn) { return a, b }},
		{"accepter sends", func(a, b *Conn) (*Conn, *Conn) { return b, a }},
	} {
		t.Run(test.name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
				from, to := test.from(a, b)
				l.until(Direct, a, b)
				beat := l.beat(from, to)
				time.Sleep(time.Second)
				beat.reset()
				done := make(chan error, 1)
				go func() { done <- pass(from, to, random(32<<20)) }()
				time.Sleep(200 * time.Millisecond)
				l.net.Cut("198.51.100.1", "198.51.100.2")
				cut := time.Now()
				l.until(Relayed, a, b)
				if after := time.Since(cut); after > stallGoal {
					l.Errorf("left after %v, want less than %v", after, stallGoal)
				}
				if p := a.Path(); p.Why != WhyPathDied && p.Why != WhyPeerMoved {
					l.Errorf("left for %v", p.Why)
				}
				if err := <-done; err != nil {
					l.Fatal(err)
				}
				if pause := beat.reset(); pause > stallGoal+200*time.Millisecond {
					l.Errorf("nothing came for %v", pause)
				}
				time.Sleep(30 * time.Second)
				l.net.Mend("198.51.100.1", "198.51.100.2")
				l.until(Direct, a, b)
				l.exchange(a, b, 100_000)
				l.end(beat)
				if a.Stats().Fallbacks+b.Stats().Fallbacks == 0 {
					l.Error("no fallback was counted")
				}
			})
		})
	}
}

// TestIdlePathDies checks that an idle connection leaves a dead path within three
// keepalive periods.
func TestIdlePathDies(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
		l.until(Direct, a, b)
		time.Sleep(3 * time.Second)
		l.net.Cut("198.51.100.1", "198.51.100.2")
		cut := time.Now()
		l.until(Relayed, a, b)
		if after := time.Since(cut); after > 3*defaultKeepAlive {
			l.Errorf("left after %v", after)
		}
		l.exchange(a, b, 10_000)
	})
}

// TestPathPassesProbesOnly checks that a path that carries probes and drops QUIC packets
// is left.
func TestPathPassesProbesOnly(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
		l.until(Direct, a, b)
		time.Sleep(time.Second)
		l.net.Filter(func(p nettest.Packet) bool {
			direct := p.From.Addr() != netip.MustParseAddrPort(relayAddr).Addr() && p.To.Addr() != netip.MustParseAddrPort(relayAddr).Addr()
			return !direct || p.Data[0] == probeType
		})
		cut := time.Now()
		l.exchange(a, b, 1<<20)
		if after := time.Since(cut); after > 3*time.Second {
			l.Errorf("arrived after %v", after)
		}
		if a.Stats().Fallbacks+b.Stats().Fallbacks == 0 {
			l.Error("no fallback was counted")
		}
	})
}

// TestRelayGoneWhileDirect checks that a direct connection survives without the relay,
// and uses it again later.
func TestRelayGoneWhileDirect(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
		l.until(Direct, a, b)
		time.Sleep(time.Second)
		l.stopRelay()
		time.Sleep(2 * time.Minute)
		l.exchange(a, b, 1<<20)
		if a.Path().Kind != Direct || b.Path().Kind != Direct {
			l.Errorf("paths %+v, %+v", a.Path(), b.Path())
		}
		l.startRelay()
		time.Sleep(20 * time.Second)
		l.net.Cut("198.51.100.1", "198.51.100.2")
		l.exchange(a, b, 1<<20)
		l.alive(a, b)
	})
}

// TestNoPath checks that a connection without any path ends with ErrNoPath.
func TestNoPath(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
		l.until(Direct, a, b)
		time.Sleep(time.Second)
		l.stopRelay()
		l.net.Cut("198.51.100.1", "198.51.100.2")
		for _, c := range []*Conn{a, b} {
			if err := l.closed(c); !errors.Is(err, ErrNoPath) {
				l.Errorf("ends with %v, want %v", err, ErrNoPath)
			}
		}
		l.startRelay()
	})
}

// TestRebindingWhileDirect checks that a connection survives when a NAT forgets its
// mappings, and gets a direct path again.
func TestRebindingWhileDirect(t *testing.T) {
	for _, who := range []string{"dialer", "accepter"} {
		t.Run(who, func(t *testing.T) {
			runLab(t, func(l *lab) {
				g := nettest.Gateway{Filtering: nettest.AddressPortDependent}
				g.Address = "203.0.113.1"
				left := l.behind(g)
				g.Address = "203.0.113.2"
				right := l.behind(g)
				a, b := l.connect(left.peer(nil), right.peer(nil))
				l.until(Direct, a, b)
				beat := l.beat(a, b)
				time.Sleep(time.Second)
				for range 3 {
					if who == "dialer" {
						left.lan.Forget()
					} else {
						right.lan.Forget()
					}
					time.Sleep(20 * time.Second)
					l.until(Direct, a, b)
					l.exchange(a, b, 100_000)
				}
				if pause := beat.reset(); pause > 2*time.Second {
					l.Errorf("nothing came for %v", pause)
				}
				l.end(beat)
			})
		})
	}
}

// roamer is a peer on a host with interfaces that come and go.
func (l *lab) roamer(node *nettest.Node) *host {
	l.Helper()
	conf := &Config{Relay: l.relay(), DisablePortMapping: true, list: func() ([]netmon.Address, error) {
		var all []netmon.Address
		for _, a := range node.Addrs() {
			all = append(all, netmon.Address{Interface: "eth0", Addr: a})
		}
		return all, nil
	}}
	conn := node.Listen("0.0.0.0:1000")
	e, err := NewEndpoint(conf, conn)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { e.Close() })
	return &host{e, conn}
}

// TestRoaming checks that a connection survives when either or both sides move to
// another network.
func TestRoaming(t *testing.T) {
	for _, who := range []string{"dialer", "accepter", "both"} {
		t.Run(who, func(t *testing.T) {
			runLab(t, func(l *lab) {
				nodes := [2]*nettest.Node{nettest.NewNode(), nettest.NewNode()}
				homes := [2]*nettest.LAN{}
				for i, n := range nodes {
					homes[i] = l.net.LAN(nettest.Gateway{Address: []string{"203.0.113.1", "203.0.113.2"}[i]})
					n.Plug("wlan", homes[i].Network, "192.168.7.2/24")
				}
				a, b := l.connect(l.roamer(nodes[0]), l.roamer(nodes[1]))
				l.until(Direct, a, b)
				beat := l.beat(a, b)
				time.Sleep(time.Second)
				beat.reset()
				for i, n := range nodes {
					if who == []string{"dialer", "accepter"}[i] || who == "both" {
						mobile := l.net.LAN(nettest.Gateway{Address: []string{"203.0.113.11", "203.0.113.12"}[i], Filtering: nettest.AddressPortDependent})
						n.Plug("wwan", mobile.Network, "10.64.0.2/24")
						n.Unplug("wlan")
					}
				}
				time.Sleep(30 * time.Second)
				l.until(Direct, a, b)
				if pause := beat.reset(); pause > 5*time.Second {
					l.Errorf("nothing came for %v", pause)
				}
				l.exchange(a, b, 100_000)
				l.end(beat)
			})
		})
	}
}

// TestSameLAN checks that peers behind one NAT without hairpinning get a path within the
// LAN.
func TestSameLAN(t *testing.T) {
	runLab(t, func(l *lab) {
		home := l.behind(nettest.Gateway{Address: "203.0.113.1"})
		a, b := l.connect(home.peer(nil), home.peer(nil))
		l.until(LAN, a, b)
		if r := a.Path().Remote; !r.Addr().IsPrivate() {
			l.Errorf("path to %v", r)
		}
		if s := a.Stats(); s.LAN != 1 || s.Direct != 0 {
			l.Errorf("%d moves to a LAN path, %d to a direct one", s.LAN, s.Direct)
		}
		l.exchange(a, b, 1<<20)
	})
}

// TestBadNetworks checks probing and migration on networks with loss, delay and
// reordering.
func TestBadNetworks(t *testing.T) {
	for name, conditions := range map[string]nettest.Conditions{
		"loss 5 %":  {Delay: 20 * time.Millisecond, Loss: 0.05},
		"loss 10 %": {Delay: 20 * time.Millisecond, Loss: 0.1},
		"300 ms":    {Delay: 300 * time.Millisecond},
		"MTU 1280":  {Delay: 20 * time.Millisecond, MTU: 1232},
		"jitter":    {Delay: 20 * time.Millisecond, Jitter: 40 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				l.net.Set(conditions)
				a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
				l.until(Direct, a, b)
				l.exchange(a, b, 100_000)
				time.Sleep(10 * time.Second)
				l.exchange(a, b, 100_000)
				l.alive(a, b)
			})
		})
	}
}

// TestOutages checks that a connection survives when no packet gets through for a while.
func TestOutages(t *testing.T) {
	for _, d := range []time.Duration{time.Second, 5 * time.Second, 15 * time.Second} {
		t.Run(d.String(), func(t *testing.T) {
			runLab(t, func(l *lab) {
				a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
				l.until(Direct, a, b)
				time.Sleep(time.Second)
				beat := l.beat(a, b)
				l.net.Outage(d)
				time.Sleep(d)
				beat.reset()
				time.Sleep(40 * time.Second)
				l.until(Direct, a, b)
				l.exchange(a, b, 100_000)
				l.end(beat)
			})
		})
	}
}

// TestPolicies checks Config.Policy, also if the two sides differ.
func TestPolicies(t *testing.T) {
	policy := func(p PathPolicy) func(*Config) { return func(c *Config) { c.Policy = p } }
	for _, test := range []struct {
		dialer, accepter PathPolicy
		want             PathKind
	}{
		{PreferDirect, RelayOnly, Relayed},
		{RelayOnly, PreferDirect, Relayed},
		{PreferRelay, PreferDirect, Relayed},
		{PreferDirect, PreferRelay, Relayed},
		{PreferDirect, DirectOnly, Direct},
		{DirectOnly, PreferDirect, Direct},
	} {
		runLab(t, func(l *lab) {
			a, b := l.connect(l.public().peer(policy(test.dialer)), l.public().peer(policy(test.accepter)))
			time.Sleep(15 * time.Second)
			l.exchange(a, b, 10_000)
			for _, c := range []*Conn{a, b} {
				if p := c.Path(); p.Kind != test.want {
					l.Errorf("policies %d and %d: path %+v", test.dialer, test.accepter, p)
				}
			}
		})
	}
}

// TestPreferRelay checks that PreferRelay uses a direct path only while the relay is
// lost.
func TestPreferRelay(t *testing.T) {
	runLab(t, func(l *lab) {
		wish := func(c *Config) { c.Policy = PreferRelay }
		a, b := l.connect(l.public().peer(wish), l.public().peer(wish))
		time.Sleep(5 * time.Second)
		l.stopRelay()
		gone := time.Now()
		l.exchange(a, b, 10_000)
		l.until(Direct, a, b)
		if after := time.Since(gone); after > 10*time.Second {
			l.Errorf("direct after %v", after)
		}
		l.startRelay()
		l.until(Relayed, a, b)
		l.exchange(a, b, 10_000)
	})
}

// TestDirectOnly checks that DirectOnly ends a connection without a direct path.
func TestDirectOnly(t *testing.T) {
	only := func(c *Config) { c.Policy = DirectOnly }
	runLab(t, func(l *lab) {
		blocked := l.behind(nettest.Gateway{Address: "203.0.113.1", Allow: func(to netip.AddrPort) bool { return to.String() == relayAddr }})
		dialer, accepter := blocked.peer(only), l.public().peer(nil)
		_, err := dialer.Dial(l.Context(), accepter.ID(), &DialConfig{Deliver: func(ctx context.Context, o Offer) error {
			_, err := accepter.AcceptOffer(ctx, o)
			return err
		}})
		if !errors.Is(err, ErrNoDirectPath) || !strings.Contains(err.Error(), "no answer") {
			l.Errorf("Dial returns %v, want %v and what was tried", err, ErrNoDirectPath)
		}
	})
	runLab(t, func(l *lab) {
		a, b := l.connect(l.public().peer(only), l.public().peer(nil))
		if k := a.Path().Kind; k != Direct {
			l.Errorf("the application gets a connection of kind %v", k)
		}
		l.net.Cut("198.51.100.1", "198.51.100.2")
		l.beat(b, a)
		if err := l.closed(a); !errors.Is(err, ErrNoDirectPath) {
			l.Errorf("ends with %v, want %v", err, ErrNoDirectPath)
		}
		if err := l.closed(b); !errors.Is(err, ErrNoDirectPath) {
			l.Errorf("the peer's ends with %v, want %v", err, ErrNoDirectPath)
		}
	})
}

// TestFallbackIsAtOnce checks that data in flight is sent again as soon as the path is
// known to be dead.
func TestFallbackIsAtOnce(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
		l.until(Direct, a, b)
		time.Sleep(time.Second)
		go func() {
			if s, err := b.AcceptUniStream(context.Background()); err == nil {
				_, _ = io.Copy(io.Discard, s)
			}
		}()
		go func() {
			if s, err := a.OpenUniStream(); err == nil {
				_, _ = s.Write(make([]byte, 64<<20))
			}
		}()
		time.Sleep(200 * time.Millisecond)
		l.net.Cut("198.51.100.1", "198.51.100.2")
		l.until(Relayed, a)
		before := l.forwarded()
		time.Sleep(40 * time.Millisecond)
		if n := l.forwarded() - before; n < 10 {
			l.Errorf("%d packets in a round trip to the relay", n)
		}
	})
}

// TestFallbackWithoutRelayPath checks that packets go through the relay although the
// relay path could not be validated.
func TestFallbackWithoutRelayPath(t *testing.T) {
	runLab(t, func(l *lab) {
		const pathProbe = 1200 // what QUIC pads these to
		l.net.Filter(func(p nettest.Packet) bool {
			return p.To.String() != relayAddr || len(p.Data) != pathProbe || wire.IsLong(p.Data[0])
		})
		larger := func(c *Config) { c.QUIC = &quic.Config{InitialPacketSize: pathProbe + 32} }
		a, b := l.connect(l.public().peer(larger), l.public().peer(larger))
		l.until(Direct, a, b)
		time.Sleep(3 * time.Second)
		l.net.Cut("198.51.100.1", "198.51.100.2")
		l.exchange(a, b, 1<<20)
		l.alive(a, b)
	})
}

// TestPeerMovesWithoutRelay checks that a peer whose address changes is followed by
// probes alone, without the relay.
func TestPeerMovesWithoutRelay(t *testing.T) {
	for _, who := range []string{"dialer", "accepter"} {
		t.Run(who, func(t *testing.T) {
			runLab(t, func(l *lab) {
				left, right := l.behind(nettest.Gateway{Address: "203.0.113.1"}), l.behind(nettest.Gateway{Address: "203.0.113.2"})
				a, b := l.connect(left.peer(nil), right.peer(nil))
				l.until(Direct, a, b)
				there, back := l.beat(a, b), l.beat(b, a)
				time.Sleep(time.Second)
				l.stopRelay()
				time.Sleep(5 * time.Second)
				moving := left
				if who == "accepter" {
					moving = right
				}
				moving.lan.Forget()
				time.Sleep(5 * time.Second)
				there.reset()
				time.Sleep(5 * time.Second)
				if pause := there.reset(); pause > time.Second {
					l.Errorf("nothing came for %v", pause)
				}
				l.startRelay()
				l.end(there)
				l.end(back)
			})
		})
	}
}

// TestNewNetworkIsProbedAtOnce checks that a host without a direct path gets one soon
// after it has moved to a network that permits it.
func TestNewNetworkIsProbedAtOnce(t *testing.T) {
	runLab(t, func(l *lab) {
		blocked := l.net.LAN(nettest.Gateway{Address: "203.0.113.1", Allow: func(to netip.AddrPort) bool { return to.String() == relayAddr }})
		strict := nettest.Gateway{Filtering: nettest.AddressPortDependent}
		strict.Address = "203.0.113.2"
		open := l.net.LAN(strict)
		strict.Address = "203.0.113.3"
		node := nettest.NewNode()
		node.Plug("wlan", blocked.Network, "192.168.7.2/24")
		a, b := l.connect(l.roamer(node), l.behind(strict).peer(nil))
		time.Sleep(40 * time.Second)
		if k := a.Path().Kind; k != Relayed {
			l.Fatalf("kind %v", k)
		}
		node.Plug("wwan", open.Network, "10.64.0.2/24")
		node.Unplug("wlan")
		moved := time.Now()
		l.until(Direct, a, b)
		// The addresses are looked at every ten seconds here.
		if after := time.Since(moved); after > 14*time.Second {
			l.Errorf("direct after %v", after)
		}
	})
}

// TestSilentMigration checks that the accepter follows a migration although neither the
// application nor QUIC sends anything.
func TestSilentMigration(t *testing.T) {
	runLab(t, func(l *lab) {
		quiet := func(c *Config) { c.QUIC = &quic.Config{DisablePathMTUDiscovery: true} }
		a, b := l.connect(l.public().peer(quiet), l.public().peer(quiet))
		start := time.Now()
		l.until(Direct, a, b)
		if after := time.Since(start); after > 500*time.Millisecond {
			l.Errorf("both are direct after %v", after)
		}
	})
}

// TestIdleRelay checks that a direct connection sends the relay only what its leg needs.
func TestIdleRelay(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
		l.exchange(a, b, 4<<20) // it moves meanwhile
		l.until(Direct, a, b)
		before := l.server.Stats().ControlPackets
		time.Sleep(time.Minute)
		// Two peers refresh their legs nine times, of a TTL of 20 s.
		if n := l.server.Stats().ControlPackets - before; n > 2*9*6 {
			l.Errorf("%d packets to the relay in a minute", n)
		}
	})
}

// TestShortNATTimeouts checks that keepalives become frequent enough for NATs with short
// timeouts.
func TestShortNATTimeouts(t *testing.T) {
	runLab(t, func(l *lab) {
		g := nettest.Gateway{Filtering: nettest.AddressPortDependent, Lifetime: 6 * time.Second}
		g.Address = "203.0.113.1"
		left := l.behind(g)
		g.Address = "203.0.113.2"
		a, b := l.connect(left.peer(nil), l.behind(g).peer(nil))
		time.Sleep(5 * time.Minute)
		learnt := a.Stats().Fallbacks + b.Stats().Fallbacks
		time.Sleep(5 * time.Minute)
		if n := a.Stats().Fallbacks + b.Stats().Fallbacks; n != learnt || learnt == 0 {
			l.Errorf("%d fallbacks in five minutes, and %d after", learnt, n-learnt)
		}
		l.until(Direct, a, b)
		l.exchange(a, b, 10_000)
	})
}

// TestPunchAgain checks that both sides open NATs that have forgotten their mappings
// after a cut.
func TestPunchAgain(t *testing.T) {
	runLab(t, func(l *lab) {
		g := nettest.Gateway{Filtering: nettest.AddressPortDependent, Lifetime: 20 * time.Second}
		g.Address = "203.0.113.1"
		left := l.behind(g)
		g.Address = "203.0.113.2"
		a, b := l.connect(left.peer(nil), l.behind(g).peer(nil))
		l.until(Direct, a, b)
		events := make(chan Path, 100)
		go func() {
			for p := range b.PathEvents(context.Background()) {
				events <- p
			}
			close(events)
		}()
		time.Sleep(time.Second)
		l.net.Cut("203.0.113.1", "203.0.113.2")
		l.exchange(a, b, 100_000)
		time.Sleep(40 * time.Second)
		for len(events) > 0 {
			if p := <-events; p.Kind != Relayed && p.Since.After(time.Now().Add(-40*time.Second)) {
				l.Errorf("%+v while the path was cut", p)
			}
		}
		l.net.Mend("203.0.113.1", "203.0.113.2")
		l.until(Direct, a, b)
		l.exchange(a, b, 100_000)
	})
}

// TestLiveness checks when a path is suspect, and when it is dead.
func TestLiveness(t *testing.T) {
	now := time.Unix(1e9, 0)
	for _, test := range []struct {
		name          string
		silence       time.Duration
		owed          uint32
		asks          int
		rtt           time.Duration
		suspect, dead bool
	}{
		{"all is well", 0, 0, 0, 0, false, false},
		{"soon", 100 * time.Millisecond, 9, 0, 0, false, false},
		{"quiet", 200 * time.Millisecond, 1, 0, 0, true, false},
		{"quiet on a long path", 200 * time.Millisecond, 1, 0, 100 * time.Millisecond, false, false},
		{"packets lost", 500 * time.Millisecond, 3, 0, 0, true, true},
		{"packets lost on a long path", 500 * time.Millisecond, 3, 0, 300 * time.Millisecond, true, false},
		{"acknowledgements only", 500 * time.Millisecond, 2, 0, 0, true, false},
		{"no answer to questions", 500 * time.Millisecond, 1, 3, 0, true, true},
	} {
		var a activity
		if test.owed > 0 {
			a.unanswered.Store(monotime.Of(now.Add(-test.silence)))
			a.owed.Store(test.owed)
		}
		v := liveness{rtt: test.rtt, asks: test.asks, asked: now.Add(-askEvery)}
		if dead := v.dead(&a, now); dead != test.dead {
			t.Errorf("%s: dead %v, want %v", test.name, dead, test.dead)
		}
		if suspect := v.suspect(&a, now); suspect != test.suspect {
			t.Errorf("%s: suspect %v, want %v", test.name, suspect, test.suspect)
		}
	}
}
