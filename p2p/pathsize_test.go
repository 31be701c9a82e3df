package p2p

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/wire"
)

// wide configures an endpoint to send packets of 1280 bytes.
func wide(c *Config) { c.QUIC = &quic.Config{InitialPacketSize: 1280} }

// narrow is a network that drops packets above a variable size.
type narrow struct {
	limit atomic.Int64
	large atomic.Int64 // packets of QUIC beyond baseSize that have passed
}

// narrowed makes the network narrow for the packets that which selects, or all if it is nil.
func (l *lab) narrowed(which func(nettest.Packet) bool) *narrow {
	n := &narrow{}
	l.net.Filter(func(p nettest.Packet) bool {
		limit := n.limit.Load()
		if limit > 0 && int64(len(p.Data)) > limit && (which == nil || which(p)) {
			return false
		}
		if len(p.Data) > baseSize && p.Data[0] != probeType {
			n.large.Add(1)
		}
		return true
	})
	return n
}

// between says whether a packet goes directly from one peer to another.
func between(p nettest.Packet) bool {
	relay := netip.MustParseAddrPort(relayAddr)
	return p.From != relay && p.To != relay
}

// within fails the test if a transfer does not end within a minute.
func (l *lab) within(done <-chan error) {
	l.Helper()
	select {
	case err := <-done:
		if err != nil {
			l.Fatal(err)
		}
	case <-time.After(time.Minute):
		l.Fatal("the transfer hangs")
	}
}

// TestPathShrinks checks that data arrives on the same path when that stops carrying
// large packets, in either direction, and that packets become large again when possible.
func TestPathShrinks(t *testing.T) {
	for _, test := range []struct {
		name   string
		policy PathPolicy
		kind   PathKind
		back   bool
		limit  int64
	}{
		{"relay, dialer sends", RelayOnly, Relayed, false, 1252},
		{"relay, accepter sends", RelayOnly, Relayed, true, 1252},
		{"relay, smallest", RelayOnly, Relayed, false, baseSize},
		{"direct, dialer sends", PreferDirect, Direct, false, 1252},
		{"direct, accepter sends", PreferDirect, Direct, true, 1252},
		{"direct, smallest", PreferDirect, Direct, true, baseSize},
	} {
		t.Run(test.name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				n := l.narrowed(nil)
				conf := func(c *Config) { wide(c); c.Policy = test.policy }
				a, b := l.connect(l.public().peer(conf), l.public().peer(conf))
				l.until(test.kind, a, b)
				if test.back {
					a, b = b, a
				}
				time.Sleep(time.Second)
				done := make(chan error, 1)
				go func() { done <- pass(a, b, random(8<<20)) }()
				time.Sleep(200 * time.Millisecond)
				if n.large.Load() == 0 {
					l.Error("no large packets before")
				}
				n.limit.Store(test.limit)
				l.within(done)
				time.Sleep(30 * time.Second) // until the size of the path is known
				n.limit.Store(0)
				go func() { done <- pass(a, b, random(4<<20)) }()
				l.within(done)
				time.Sleep(lastRaise)
				n.large.Store(0)
				go func() { done <- pass(a, b, random(4<<20)) }()
				l.within(done)
				if n.large.Load() < 1000 {
					l.Errorf("%d large packets after", n.large.Load())
				}
				if kind := a.Path().Kind; kind != test.kind {
					l.Errorf("the path is %v, want %v", kind, test.kind)
				}
			})
		})
	}
}

// TestInterfaceShrinks checks that a connection survives when the MTU of this host's
// interface shrinks.
func TestInterfaceShrinks(t *testing.T) {
	for _, policy := range []PathPolicy{RelayOnly, PreferDirect} {
		t.Run(map[PathPolicy]string{RelayOnly: "relay", PreferDirect: "direct"}[policy], func(t *testing.T) {
			runLab(t, func(l *lab) {
				conf := func(c *Config) { wide(c); c.Policy = policy }
				alice := l.public().peer(conf)
				a, b := l.connect(alice, l.public().peer(conf))
				time.Sleep(time.Second)
				done := make(chan error, 1)
				go func() { done <- pass(a, b, random(8<<20)) }()
				time.Sleep(200 * time.Millisecond)
				alice.conn.SetMTU(1232)
				l.within(done)
			})
		})
	}
}

// TestNarrowPathIsNotTaken checks that a path that carries only small packets is not
// used, and that no QUIC packet is sent there.
func TestNarrowPathIsNotTaken(t *testing.T) {
	runLab(t, func(l *lab) {
		n := l.narrowed(between)
		n.limit.Store(baseSize - 1)
		quic := l.spyOn(n, func(p nettest.Packet) bool { return between(p) && p.Data[0] != probeType })
		a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
		var tried []PairResult
		for p := range a.PathEvents(l.Context()) {
			if tried = p.Tried; p.Why == WhyNotUsable {
				break
			}
		}
		l.exchange(a, b, 1<<20)
		if kind := a.Path().Kind; kind != Relayed || quic.Load() != 0 {
			l.Errorf("the path is %v, %d packets of QUIC went past the relay", kind, quic.Load())
		}
		if len(tried) != 1 || tried[0].RTT == 0 || tried[0].Size >= baseSize {
			l.Errorf("tried %v", tried)
		}
		n.limit.Store(0)
		l.until(Direct, a, b)
	})
}

// spyOn counts the packets that are sent to a narrow network.
func (l *lab) spyOn(n *narrow, which func(nettest.Packet) bool) *atomic.Int64 {
	var count atomic.Int64
	l.net.Filter(func(p nettest.Packet) bool {
		limit := n.limit.Load()
		if which(p) && limit > 0 {
			count.Add(1)
		}
		return limit == 0 || !between(p) || int64(len(p.Data)) <= limit
	})
	return &count
}

// TestSmallestDirectPath checks that a direct path with an MTU of 1240 is used.
func TestSmallestDirectPath(t *testing.T) {
	runLab(t, func(l *lab) {
		l.narrowed(between).limit.Store(1240 - 28)
		a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
		l.until(Direct, a, b)
		done := make(chan error, 1)
		go func() { done <- errors.Join(pass(a, b, random(4<<20)), pass(b, a, random(4<<20))) }()
		l.within(done)
		if s := a.Stats(); s.Fallbacks != 0 || a.Path().Kind != Direct {
			l.Errorf("left %d times, the path is %v", s.Fallbacks, a.Path().Kind)
		}
	})
}

// TestTunnelIsNotPreferred checks that a tunnel within a site is not preferred to the
// site's own network.
func TestTunnelIsNotPreferred(t *testing.T) {
	now := time.Now()
	l := newChecklist()
	add := func(addr string, size int, rtt time.Duration) *pair {
		p := l.add(candidate{HostCandidate, netip.MustParseAddrPort(addr)}, now)
		p.answered, p.size, p.rtt = now, size, rtt
		return p
	}
	overlay := add("[fd00::1]:1", baseSize, time.Millisecond)
	plain := add("203.0.113.1:1", fullSize, 3*time.Millisecond)
	if best := l.best(); best != plain {
		t.Errorf("%v is chosen", best.addr)
	}
	overlay.size = fullSize
	if best := l.best(); best != overlay {
		t.Errorf("%v is chosen", best.addr)
	}
	overlay.size, plain.size = baseSize-1, 0
	if best := l.best(); best != nil {
		t.Errorf("%v is chosen, which carries no QUIC", best.addr)
	}
}

// TestControlPacketsStaySmall checks that packets of control connections stay at 1200
// bytes, also when the path has carried larger ones.
func TestControlPacketsStaySmall(t *testing.T) {
	runLab(t, func(l *lab) {
		conf := controlConfig(&Config{})
		if conf.InitialPacketSize != baseSize || !conf.DisablePathMTUDiscovery {
			l.Errorf("packets of %d bytes, growing: %v", conf.InitialPacketSize, !conf.DisablePathMTUDiscovery)
		}
		l.narrowed(nil).limit.Store(baseSize)
		alice, bob := l.host(nil), l.host(nil)
		go func() { _, _ = bob.Accept(l.Context()) }()
		if _, err := alice.Dial(l.Context(), bob.ID(), nil); err != nil {
			l.Error(err)
		}
	})
}

// TestPieces checks that two halves make a packet, in either order and once, and that
// their number is bounded.
func TestPieces(t *testing.T) {
	var p pieces
	piece := func(number uint32, data string) []byte {
		b := make([]byte, pieceHeader, pieceHeader+len(data))
		b[pieceHeader-1], b[pieceHeader-2] = byte(number), byte(number>>8)
		return append(b, data...)
	}
	for _, order := range [][2]uint32{{2, 3}, {5, 4}} {
		name := map[uint32]string{2: "first ", 3: "second", 4: "first ", 5: "second"}
		if got := p.add(piece(order[0], name[order[0]])); got != nil {
			t.Errorf("a half is %q", got)
		}
		if got := p.add(piece(order[1], name[order[1]])); string(got) != "first second" {
			t.Errorf("two halves are %q", got)
		}
	}
	for n := range uint32(10 * maxHalves) {
		p.add(piece(2*n, "x"))
		p.add(piece(2*n, "x"))
	}
	if len(p.halves) > maxHalves || len(p.order) > maxHalves {
		t.Errorf("%d halves are kept", len(p.halves))
	}
	for _, b := range [][]byte{nil, {1}, make([]byte, pieceHeader)} {
		if p.add(b) != nil {
			t.Errorf("%d bytes are a packet", len(b))
		}
	}
	huge := strings.Repeat("x", fullSize/2+1)
	if p.add(piece(9, huge)); len(p.halves[9]) > 0 {
		t.Error("more than half of a packet is kept as a half")
	}
}

// TestSearchIsRefused checks that packets of quic-go's search for a larger size are
// dropped, and data of that size is not.
func TestSearchIsRefused(t *testing.T) {
	var s pathSize
	s.restart(baseSize, baseSize)
	for i := range 2 * maxRefused {
		if got := s.refuses(1300); got != (i < maxRefused) {
			t.Fatalf("packet %d refused: %v", i, got)
		}
	}
	s.set(1400)
	if s.refuses(1400) || !s.carries(1400) || s.carries(1401) {
		t.Error("a packet that passes is refused")
	}
}

// TestDialByRelayThatDoesNotForward checks that both peers get ErrNotForwarded.
func TestDialByRelayThatDoesNotForward(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.public().peer(nil), l.public().peer(nil)
		relay := netip.MustParseAddrPort(relayAddr)
		l.net.Filter(func(p nettest.Packet) bool {
			return p.To != relay || wire.IsLong(p.Data[0]) || p.Data[1]&0x80 != 0
		})
		ctx, cancel := context.WithTimeout(l.Context(), 20*time.Second)
		defer cancel()
		accepted := make(chan error, 1)
		_, err := alice.Dial(ctx, bob.ID(), &DialConfig{Deliver: func(ctx context.Context, o Offer) error {
			_, err := bob.AcceptOffer(ctx, o)
			accepted <- err
			return nil
		}})
		if !errors.Is(err, ErrNotForwarded) || !errors.Is(err, context.DeadlineExceeded) {
			l.Fatalf("dial: %v", err)
		}
		if err := <-accepted; !errors.Is(err, ErrNotForwarded) {
			l.Errorf("accept: %v", err)
		}
	})
}

// TestRelayDoesNotForward checks that a relay that answers but forwards nothing counts
// as lost. A PreferRelay connection gets a direct path. A RelayOnly connection reports
// that the relay is lost, and that it is back.
func TestRelayDoesNotForward(t *testing.T) {
	for _, test := range []struct {
		name   string
		policy PathPolicy
		silent bool // the dialer sends nothing
	}{
		{"relay only", RelayOnly, false},
		{"prefer relay", PreferRelay, false},
		{"prefer relay, dialer silent", PreferRelay, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				conf := func(c *Config) { c.Policy = test.policy }
				a, b := l.connect(l.public().peer(conf), l.public().peer(conf))
				time.Sleep(10 * time.Second)
				from, to := a, b
				if test.silent {
					from, to = b, a
				}
				beat := l.beat(from, to)
				time.Sleep(time.Second)
				relay := netip.MustParseAddrPort(relayAddr)
				l.net.Filter(func(p nettest.Packet) bool {
					return p.To != relay || wire.IsLong(p.Data[0]) || p.Data[1]&0x80 != 0
				})
				deadline := time.Now().Add(15 * time.Second)
				lost := func() bool { return from.relayLost.Load() }
				if test.policy == PreferRelay {
					lost = func() bool { return a.Path().Kind == Direct && b.Path().Kind == Direct }
				}
				for !lost() {
					if time.Now().After(deadline) {
						l.Fatalf("paths %+v, %+v", a.Path(), b.Path())
					}
					time.Sleep(10 * time.Millisecond)
				}
				if test.policy == RelayOnly && from.Path().Why != WhyRelayLost {
					l.Errorf("path %+v", from.Path())
				}
				time.Sleep(5 * time.Second)
				l.net.Filter(nil)
				time.Sleep(10 * time.Second)
				if p := from.Path(); p.Kind != Relayed || from.relayLost.Load() {
					l.Errorf("the relay is back, and the path is %+v", p)
				}
				beat.reset()
				time.Sleep(time.Second)
				if pause := beat.reset(); pause > 500*time.Millisecond {
					l.Errorf("nothing came for %v", pause)
				}
				l.end(beat)
			})
		})
	}
}
