package p2p

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/relay"
)

// kernelLab is two sites and a relay, each a network namespace or two, with real
// sockets, the kernel's NATs, and the real clock:
//
//	host 192.168.1.2 — nat 203.0.113.2 — core — nat 203.0.113.6 — host 192.168.2.2
//	                                      |
//	                              relay 198.51.100.2
type kernelLab struct {
	*testing.T
	core, relay *nettest.Host
	sites       [2]*kernelSite
	server      *relay.Server
	served      chan error
}

// kernelSite is a host, and its NAT if it has one.
type kernelSite struct {
	lab      *kernelLab
	index    int
	host     *nettest.Host
	nat      *nettest.Host
	outside  string // its address on the core
	endpoint *Endpoint
}

const kernelRelay = "198.51.100.2:4433"

// newKernelLab makes a kernelLab. change, if not nil, changes the configuration of the
// endpoints.
func newKernelLab(t *testing.T, left, right nettest.NAT, change func(*Config)) *kernelLab {
	t.Helper()
	l := layKernelLab(t, left, right)
	for _, s := range l.sites {
		s.open(change)
	}
	return l
}

// layKernelLab makes a kernelLab without endpoints.
func layKernelLab(t *testing.T, left, right nettest.NAT) *kernelLab {
	t.Helper()
	l := &kernelLab{T: t, core: nettest.NewHost(t), relay: nettest.NewHost(t)}
	l.core.NAT(nettest.NoNAT, "")
	nettest.Cable(l.relay, "eth0", []string{"198.51.100.2/30"}, l.core, "relay", []string{"198.51.100.1/30"})
	l.relay.Route("0.0.0.0/0", "198.51.100.1")
	l.startRelay()
	t.Cleanup(func() {
		if l.server != nil {
			l.stopRelay()
		}
	})
	for i, nat := range []nettest.NAT{left, right} {
		l.sites[i] = l.site(i, nat)
	}
	return l
}

// site makes a site. One without NAT is a host on the core.
func (l *kernelLab) site(i int, nat nettest.NAT) *kernelSite {
	l.Helper()
	s := &kernelSite{lab: l, index: i, host: nettest.NewHost(l)}
	s.outside = fmt.Sprintf("203.0.113.%d", 4*i+2)
	if nat == nettest.NoNAT {
		s.join(s.host, "eth0")
		return s
	}
	s.nat = nettest.NewHost(l)
	s.join(s.nat, "out")
	s.nat.NAT(nat, "out")
	lan := fmt.Sprintf("192.168.%d.", i+1)
	nettest.Cable(s.host, "eth0", []string{lan + "2/24"}, s.nat, "in", []string{lan + "1/24"})
	s.host.Route("0.0.0.0/0", lan+"1")
	return s
}

// join puts a host on the core, at the site's address.
func (s *kernelSite) join(h *nettest.Host, iface string) {
	s.lab.Helper()
	gateway := fmt.Sprintf("203.0.113.%d", 4*s.index+1)
	nettest.Cable(h, iface, []string{s.outside + "/30"}, s.lab.core, fmt.Sprintf("site%d", s.index), []string{gateway + "/30"})
	h.Route("0.0.0.0/0", gateway)
}

// open makes the site's endpoint.
func (s *kernelSite) open(change func(*Config)) {
	s.lab.Helper()
	conf := &Config{Relay: s.lab.where(), DisablePortMapping: true}
	if testing.Verbose() {
		conf.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("test", s.lab.Name(), "site", s.index)
	}
	if change != nil {
		change(conf)
	}
	s.host.Do(func() (err error) {
		s.endpoint, err = NewEndpoint(conf)
		return err
	})
	s.lab.Cleanup(func() {
		if err := s.endpoint.Close(); err != nil {
			s.lab.Errorf("close endpoint: %v", err)
		}
	})
}

func (l *kernelLab) startRelay() {
	l.Helper()
	server, err := relay.New(&relay.Config{Secret: relaySecret}, l.relay.Listen(kernelRelay))
	if err != nil {
		l.Fatal(err)
	}
	served := make(chan error, 1)
	l.server, l.served = server, served
	go func() { served <- server.Run(context.Background()) }()
}

func (l *kernelLab) stopRelay() {
	l.Helper()
	err := l.server.Close()
	l.server = nil
	if err != nil {
		l.Errorf("close relay: %v", err)
	}
	if err := <-l.served; !errors.Is(err, relay.ErrClosed) {
		l.Errorf("relay: %v", err)
	}
}

// where returns the relay for peers.
func (l *kernelLab) where() Relay {
	pin, err := ParsePeerID(l.server.Pin())
	if err != nil {
		l.Fatal(err)
	}
	return Relay{Addr: kernelRelay, Token: l.server.Token(), Pin: pin}
}

// connect has the left site dial the right one. Each call runs in the network namespace of
// its host, because the endpoint watches the addresses of that namespace.
func (l *kernelLab) connect() (dialed, accepted *Conn) {
	l.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	left, right := l.sites[0], l.sites[1]
	got := make(chan *Conn, 1)
	deliver := func(_ context.Context, o Offer) error {
		return right.host.Run(func() error {
			c, err := right.endpoint.AcceptOffer(ctx, o)
			got <- c
			return err
		})
	}
	left.host.Do(func() (err error) {
		dialed, err = left.endpoint.Dial(ctx, right.endpoint.ID(), &DialConfig{Deliver: deliver})
		return err
	})
	return dialed, <-got
}

// kernelPatience is how long a test waits for something that happens soon, on a machine that
// may be busy.
const kernelPatience = 45 * time.Second

// becomes waits until the paths of both sides are of a kind.
func (l *kernelLab) becomes(want PathKind, a, b *Conn) {
	l.Helper()
	nettest.Eventually(l, fmt.Sprintf("paths of kind %v, but %v and %v", want, a.Path(), b.Path()), func() bool {
		l.alive(a, b)
		return a.Path().Kind == want && b.Path().Kind == want
	})
}

// pastRelay waits until the relay forwards none of a few thousand packets of the peers. It
// still forwards some while the relay path is being validated.
func (l *kernelLab) pastRelay(a, b *Conn) {
	l.Helper()
	nettest.Eventually(l, "nothing by the relay", func() bool {
		l.becomes(Direct, a, b)
		before := l.server.Stats().ForwardedPackets
		l.exchange(a, b, 2<<20)
		return l.server.Stats().ForwardedPackets == before && a.Path().Kind == Direct && b.Path().Kind == Direct
	})
}

func (l *kernelLab) alive(conns ...*Conn) {
	l.Helper()
	for _, c := range conns {
		if err := c.Err(); err != nil {
			l.Fatalf("the connection is over: %v", err)
		}
	}
}

// exchange sends data in both directions at the same time.
func (l *kernelLab) exchange(a, b *Conn, n int) {
	l.Helper()
	var both sync.WaitGroup
	for _, direction := range [2][2]*Conn{{a, b}, {b, a}} {
		both.Go(func() {
			if err := transfer(direction[0], direction[1], n, nil); err != nil {
				l.Error(err)
			}
		})
	}
	both.Wait()
	if l.Failed() {
		l.FailNow()
	}
}

// transfer sends n random bytes on a stream, and compares what arrives. halfway, if not
// nil, is called in the middle.
func transfer(from, to *Conn, n int, halfway func()) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*kernelPatience)
	defer cancel()
	sent, got := sha256.New(), sha256.New()
	sending := make(chan error, 1)
	go func() { sending <- pour(ctx, from, n, sent) }()
	stream, err := to.AcceptUniStream(ctx)
	if err != nil {
		return fmt.Errorf("accept stream: %w", err)
	}
	defer context.AfterFunc(ctx, func() { stream.CancelRead(0) })()
	first, err := io.CopyN(got, stream, int64(n/2))
	if err == nil && halfway != nil {
		halfway()
	}
	rest := int64(0)
	if err == nil {
		rest, err = io.Copy(got, stream)
	}
	if err = errors.Join(err, <-sending); err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", first+rest, n, err)
	}
	if !slices.Equal(sent.Sum(nil), got.Sum(nil)) {
		return fmt.Errorf("%d other bytes arrived, of %d", first+rest, n)
	}
	return nil
}

// pour sends n random bytes on a new stream, and writes them to another writer as well.
func pour(ctx context.Context, c *Conn, n int, also io.Writer) error {
	stream, err := c.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { stream.CancelWrite(0) })()
	source := io.LimitReader(rand.NewChaCha8([32]byte{byte(n)}), int64(n))
	if _, err := io.Copy(io.MultiWriter(stream, also), source); err != nil {
		return err
	}
	return stream.Close()
}

// kernelNATs are the NATs of the matrix.
var kernelNATs = []struct {
	name string
	nat  nettest.NAT
}{
	{"none", nettest.NoNAT},
	{"full cone", nettest.FullCone},
	{"port-restricted", nettest.PortRestricted},
	{"symmetric", nettest.Symmetric},
}

// TestKernelMatrix checks between which pairs of the kernel's NATs there is a direct
// path, and that other pairs stay on the relay and report why.
func TestKernelMatrix(t *testing.T) {
	for _, left := range kernelNATs {
		for _, right := range kernelNATs {
			t.Run(left.name+"/"+right.name, func(t *testing.T) {
				t.Parallel()
				l := newKernelLab(t, left.nat, right.nat, nil)
				a, b := l.connect()
				if !punchable(left.name, right.name) {
					l.staysRelayed(a, b)
					return
				}
				l.pastRelay(a, b)
			})
		}
	}
}

// staysRelayed checks that a connection stays on the relay, works, and knows why.
func (l *kernelLab) staysRelayed(a, b *Conn) {
	l.Helper()
	nettest.Eventually(l, "both sides know that there is no answer", func() bool {
		return a.Path().Why == WhyNoAnswer && b.Path().Why == WhyNoAnswer
	})
	l.exchange(a, b, 256<<10)
	for _, c := range []*Conn{a, b} {
		if p := c.Path(); p.Kind != Relayed || len(p.Tried) == 0 {
			l.Errorf("path %+v, want the relay's, and what was tried", p)
		}
	}
}

// TestKernelRebinding checks that a connection survives when the NAT of one or both
// sides forgets its mappings, and gets a direct path again.
func TestKernelRebinding(t *testing.T) {
	eachSide(t, func(l *kernelLab, s *kernelSite) { s.nat.Forget() })
}

// TestKernelUplink checks that a connection survives when the host of one or both sides
// moves to another network behind another NAT.
func TestKernelUplink(t *testing.T) {
	eachSide(t, func(l *kernelLab, s *kernelSite) {
		old := s.outside
		s.outside = fmt.Sprintf("203.0.113.%d", 64+4*s.index+2)
		mobile := nettest.NewHost(l)
		gateway := fmt.Sprintf("203.0.113.%d", 64+4*s.index+1)
		nettest.Cable(mobile, "out", []string{s.outside + "/30"}, l.core, fmt.Sprintf("mobile%d", s.index), []string{gateway + "/30"})
		mobile.Route("0.0.0.0/0", gateway)
		mobile.NAT(nettest.PortRestricted, "out")
		lan := fmt.Sprintf("10.%d.0.", s.index+1)
		nettest.Cable(s.host, "wwan0", []string{lan + "2/24"}, mobile, "in", []string{lan + "1/24"})
		s.host.Unplug("eth0")
		s.host.Route("0.0.0.0/0", lan+"1")
		l.Logf("site %d is at %s, was at %s", s.index, s.outside, old)
	})
}

// eachSide changes one side, then the other, then both, while the connection between them is
// direct and in use.
func eachSide(t *testing.T, happens func(*kernelLab, *kernelSite)) {
	for name, who := range map[string][]int{"dialer": {0}, "accepter": {1}, "both": {0, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newKernelLab(t, nettest.PortRestricted, nettest.PortRestricted, nil)
			a, b := l.connect()
			l.pastRelay(a, b)
			beat := (&lab{T: t}).beat(a, b)
			for _, i := range who {
				happens(l, l.sites[i])
			}
			l.pastRelay(a, b)
			(&lab{T: t}).end(beat)
		})
	}
}

// kernelTransfer is the number of bytes that are sent while the path changes: so many that
// flow control keeps the sender from having sent three quarters when half of them are read.
const kernelTransfer = 32 << 20

// TestKernelCut checks that a transfer continues through the relay when the direct path
// becomes a black hole, and returns to a direct path when it works again.
func TestKernelCut(t *testing.T) {
	for _, name := range []string{"dialer sends", "accepter sends"} {
		t.Run(name, func(t *testing.T) {
			l := newKernelLab(t, nettest.PortRestricted, nettest.FullCone, nil)
			a, b := l.connect()
			from, to := a, b
			if name == "accepter sends" {
				from, to = b, a
			}
			l.pastRelay(a, b)
			before := l.server.Stats().ForwardedBytes
			if err := transfer(from, to, kernelTransfer, l.cut); err != nil {
				t.Fatal(err)
			}
			if n := l.server.Stats().ForwardedBytes - before; n < kernelTransfer/4 {
				t.Errorf("the relay has forwarded %d bytes", n)
			}
			if from.Stats().Fallbacks+to.Stats().Fallbacks == 0 {
				t.Error("no fallback was counted")
			}
			l.becomes(Relayed, a, b)
			l.core.Mend()
			l.pastRelay(a, b)
		})
	}
}

// cut drops all packets between the sites.
func (l *kernelLab) cut() { l.core.Cut(l.sites[0].outside, l.sites[1].outside) }

// TestKernelRelayRestart checks that a direct connection can fall back to a relay that
// was restarted with the same secret.
func TestKernelRelayRestart(t *testing.T) {
	l := newKernelLab(t, nettest.PortRestricted, nettest.PortRestricted, nil)
	a, b := l.connect()
	l.pastRelay(a, b)
	l.stopRelay()
	l.startRelay()
	l.exchange(a, b, 1<<20)
	l.becomes(Direct, a, b)
	nettest.Eventually(l, "both legs are back", func() bool { return l.server.Stats().Legs == 2 })
	l.cut()
	l.exchange(a, b, 1<<20)
	l.becomes(Relayed, a, b)
}

// TestKernelRelayGone checks that a direct connection survives without the relay, and
// ends with ErrNoPath when the direct path dies as well.
func TestKernelRelayGone(t *testing.T) {
	l := newKernelLab(t, nettest.PortRestricted, nettest.PortRestricted, func(c *Config) {
		c.KeepAlive = time.Second
		c.QUIC = &quic.Config{MaxIdleTimeout: 4 * time.Second}
	})
	a, b := l.connect()
	l.pastRelay(a, b)
	l.stopRelay()
	nettest.Eventually(l, "both sides know that the relay is lost", func() bool { return a.relayLost.Load() && b.relayLost.Load() })
	l.exchange(a, b, 1<<20)
	if a.Path().Kind != Direct || b.Path().Kind != Direct {
		t.Errorf("paths %v and %v, want direct ones", a.Path(), b.Path())
	}
	l.cut()
	for _, c := range []*Conn{a, b} {
		select {
		case <-c.Context().Done():
			if err := c.Err(); !errors.Is(err, ErrNoPath) {
				t.Errorf("ends with %v, want %v", err, ErrNoPath)
			}
		case <-time.After(kernelPatience):
			t.Fatal("the connection does not end")
		}
	}
}
