package relay_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/xdptest"
	"github.com/quicway/quicway/p2p"
	"github.com/quicway/quicway/relay"
	"github.com/quicway/quicway/xdp"
)

// internet is two peers and a relay, connected by a router, or directly to the relay.
type internet struct {
	*testing.T
	relay, alice, bob *nettest.Host
	router            *nettest.Host // nil: there is none
	program           *xdp.Program
	server            *relay.Server
	ids               *seenIDs // nil: not needed
	ifaces            []string // of the relay
	passing           sync.Once
	pass              []func() // make the veths deliver what a native program sends
}

// family is an IP version, with the addresses of the hosts.
type family struct{ name, relay, alice, bob string }

var kernelFamilies = []family{
	{"IPv4", "10.1.0.2:4433", "10.2.0.2:1000", "10.3.0.2:2000"},
	{"IPv6", "[fd01::2]:4433", "[fd02::2]:1000", "[fd03::2]:2000"},
}

// oneNIC puts a router between the peers and the relay.
func (n *internet) oneNIC() {
	router := nettest.NewHost(n)
	n.router = router
	router.Sysctl("net/ipv4/ip_forward", "1")
	router.Sysctl("net/ipv6/conf/all/forwarding", "1")
	for i, h := range []*nettest.Host{n.relay, n.alice, n.bob} {
		net := i + 1
		nettest.Cable(h, "eth0", []string{fmt.Sprintf("10.%d.0.2/24", net), fmt.Sprintf("fd0%d::2/64", net)},
			router, fmt.Sprintf("r%d", net), []string{fmt.Sprintf("10.%d.0.1/24", net), fmt.Sprintf("fd0%d::1/64", net)})
	}
	for _, to := range []string{"2", "3"} {
		n.relay.Route("10."+to+".0.0/24", "10.1.0.1")
		n.relay.Route("fd0"+to+"::/64", "fd01::1")
	}
	for i, h := range []*nettest.Host{n.alice, n.bob} {
		h.Route("10.1.0.0/24", fmt.Sprintf("10.%d.0.1", i+2))
		h.Route("fd01::/64", fmt.Sprintf("fd0%d::1", i+2))
	}
	n.pass = append(n.pass, func() { router.PassXDP("r1") })
	n.ifaces = []string{"eth0"}
}

// twoNICs connects each peer directly to the relay, whose address is on its loopback
// interface.
func (n *internet) twoNICs() {
	for i, h := range []*nettest.Host{n.alice, n.bob} {
		net := i + 2
		nettest.Cable(n.relay, fmt.Sprintf("eth%d", i), []string{fmt.Sprintf("10.%d.0.1/24", net), fmt.Sprintf("fd0%d::1/64", net)},
			h, "eth0", []string{fmt.Sprintf("10.%d.0.2/24", net), fmt.Sprintf("fd0%d::2/64", net)})
		h.Route("10.1.0.0/24", fmt.Sprintf("10.%d.0.1", net))
		h.Route("fd01::/64", fmt.Sprintf("fd0%d::1", net))
		n.pass = append(n.pass, func() { h.PassXDP("eth0") })
		n.ifaces = append(n.ifaces, fmt.Sprintf("eth%d", i))
	}
	n.relay.Address("lo", "10.1.0.2/32", "fd01::2/128")
}

// newHosts builds the hosts, without a relay.
func newHosts(t *testing.T, build func(*internet)) *internet {
	t.Helper()
	n := &internet{T: t, relay: nettest.NewHost(t), alice: nettest.NewHost(t), bob: nettest.NewHost(t)}
	build(n)
	for _, iface := range n.ifaces {
		n.relay.Sysctl("net/ipv4/conf/"+iface+"/forwarding", "1")
		n.relay.Sysctl("net/ipv6/conf/"+iface+"/forwarding", "1")
	}
	return n
}

// newInternet builds the hosts, and runs a relay whose program is not attached yet.
func newInternet(t *testing.T, build func(*internet), f family) *internet {
	t.Helper()
	return newInternetWith(t, build, f, &xdp.Config{Sessions: 64}, nil)
}

func newInternetWith(t *testing.T, build func(*internet), f family, conf *xdp.Config, log *slog.Logger) *internet {
	t.Helper()
	n := newHosts(t, build)
	n.load(conf)
	n.ids = &seenIDs{MemoryStore: cid.NewMemoryStore(nil)}
	n.serve(f, &relay.Config{Logger: log, Store: n.ids})
	return n
}

// load loads the relay's program.
func (n *internet) load(conf *xdp.Config) {
	n.Helper()
	program := xdptest.Load(n, conf)
	n.program = program
}

// serve runs a relay with the program.
func (n *internet) serve(f family, conf *relay.Config) {
	n.Helper()
	conf.XDP = n.program
	var err error
	if n.server, err = relay.New(conf, n.relay.Listen(f.relay)); err != nil {
		n.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- n.server.Run(context.Background()) }()
	n.Cleanup(func() {
		if err := n.server.Close(); err != nil {
			n.Error(err)
		}
		<-served
	})
}

func (n *internet) attach(mode xdp.Mode) {
	n.Helper()
	if mode == xdp.Native {
		n.letPass()
	}
	for _, iface := range n.ifaces {
		n.relay.Do(func() error {
			got, err := n.program.Attach(iface, mode)
			if err == nil && got != mode {
				err = fmt.Errorf("attached to %s in mode %v, want %v", iface, got, mode)
			}
			return err
		})
	}
}

func (n *internet) letPass() {
	n.passing.Do(func() {
		for _, pass := range n.pass {
			pass()
		}
	})
}

func (n *internet) detach() {
	n.Helper()
	for _, iface := range n.ifaces {
		n.relay.Do(func() error { return n.program.Detach(iface) })
	}
}

// connect makes a connection between alice and bob.
func (n *internet) connect(f family) (a, b *p2p.Conn) {
	n.Helper()
	return n.connectConn(f, n.alice.Listen(f.alice))
}

// connectConn is connect with a given socket of alice's.
func (n *internet) connectConn(f family, alice net.PacketConn) (a, b *p2p.Conn) {
	n.Helper()
	return n.meet(f, alice, n.server.Token(), n.server.Pin())
}

// meet is connectConn by a relay with this token and pin.
func (n *internet) meet(f family, aliceConn net.PacketConn, token, pinText string) (a, b *p2p.Conn) {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.Context(), 20*time.Second)
	defer cancel()
	pin, err := p2p.ParsePeerID(pinText)
	if err != nil {
		n.Fatal(err)
	}
	conf := &p2p.Config{Relay: p2p.Relay{Addr: f.relay, Token: token, Pin: pin}}
	endpoint := func(conn net.PacketConn) *p2p.Endpoint {
		e, err := p2p.NewEndpoint(conf, conn)
		if err != nil {
			n.Fatal(err)
		}
		n.Cleanup(func() { e.Close() })
		return e
	}
	alice, bob := endpoint(aliceConn), endpoint(n.bob.Listen(f.bob))
	accepted := make(chan *p2p.Conn, 1)
	a, err = alice.Dial(ctx, bob.ID(), &p2p.DialConfig{Deliver: func(ctx context.Context, o p2p.Offer) error {
		c, err := bob.AcceptOffer(ctx, o)
		accepted <- c
		return err
	}})
	if err != nil {
		n.Fatal(err)
	}
	return a, <-accepted
}

// transfer sends bytes from one to the other, and compares.
func (n *internet) transfer(from, to *p2p.Conn, size int64) {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.Context(), time.Minute)
	defer cancel()
	if err := chunk(ctx, from, to, size); err != nil {
		n.Fatal(err)
	}
}

// chunk sends bytes on a new stream, and compares what arrives.
func chunk(ctx context.Context, from, to *p2p.Conn, size int64) error {
	sums := make(chan [32]byte, 2)
	errs := make(chan error, 2)
	go func() {
		stream, err := from.OpenUniStreamSync(ctx)
		if err == nil {
			h := sha256.New()
			source := io.LimitReader(rand.NewChaCha8([32]byte{byte(size)}), size)
			_, err = io.Copy(stream, io.TeeReader(source, h))
			sums <- [32]byte(h.Sum(nil))
			err = errors.Join(err, stream.Close())
		}
		errs <- err
	}()
	go func() {
		stream, err := to.AcceptUniStream(ctx)
		if err == nil {
			h := sha256.New()
			_, err = io.Copy(h, stream)
			sums <- [32]byte(h.Sum(nil))
		}
		errs <- err
	}()
	for range 2 {
		if err := <-errs; err != nil {
			return err
		}
	}
	if sent, received := <-sums, <-sums; sent != received {
		return errors.New("other bytes arrived")
	}
	return nil
}

// flow sends chunks one after the other until done is closed, and compares.
func flow(from, to *p2p.Conn, done <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		select {
		case <-done:
			return nil
		default:
		}
		if err := chunk(ctx, from, to, 1<<20); err != nil {
			return err
		}
	}
}

// moves waits until a counter has increased a lot.
func (n *internet) moves(what string, counter func() uint64) {
	n.Helper()
	const far = 1000
	for deadline, start := time.Now().Add(30*time.Second), counter(); counter() < start+far; {
		if time.Now().After(deadline) {
			n.Fatalf("%s no packets", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (n *internet) relayed() uint64 {
	n.Helper()
	s, err := n.program.Stats()
	if err != nil {
		n.Fatal(err)
	}
	return s["relayed"]
}

const kernelTransfer = 64 << 20

// TestKernelForwards checks that the kernel forwards the packets with short headers of a
// real transfer, and that the relay's own loop does not see them.
func TestKernelForwards(t *testing.T) {
	for _, nics := range []struct {
		name  string
		build func(*internet)
	}{{"one NIC", (*internet).oneNIC}, {"two NICs", (*internet).twoNICs}} {
		for _, f := range kernelFamilies {
			for _, mode := range []xdp.Mode{xdp.Native, xdp.Generic} {
				t.Run(fmt.Sprintf("%s/%s/%v", nics.name, f.name, mode), func(t *testing.T) {
					n := newInternet(t, nics.build, f)
					n.attach(mode)
					a, b := n.connect(f)
					n.transfer(a, b, 1<<20) // until the window has moved
					ours, kernels := n.server.Stats().ForwardedPackets, n.relayed()
					n.transfer(a, b, kernelTransfer)
					ours, kernels = n.server.Stats().ForwardedPackets-ours, n.relayed()-kernels
					if min := uint64(kernelTransfer / 1452); kernels < min {
						t.Errorf("the kernel has forwarded %d packets, want at least %d", kernels, min)
					}
					if ours > kernels/1000 {
						t.Errorf("the loop has forwarded %d packets, the kernel %d", ours, kernels)
					}
				})
			}
		}
	}
}

// TestKernelComesAndGoes checks that packets still arrive when the program is attached and
// detached while they flow.
func TestKernelComesAndGoes(t *testing.T) {
	for _, mode := range []xdp.Mode{xdp.Native, xdp.Generic} {
		t.Run(mode.String(), func(t *testing.T) {
			f := kernelFamilies[0]
			n := newInternet(t, (*internet).twoNICs, f)
			a, b := n.connect(f)
			n.transfer(a, b, 4<<20)
			if n.relayed() != 0 {
				t.Error("the kernel forwards before it is attached")
			}
			done := make(chan struct{})
			flowing := make(chan error, 1)
			go func() { flowing <- flow(a, b, done) }()
			loop := func() uint64 { return n.server.Stats().ForwardedPackets }
			for range 3 {
				n.attach(mode)
				n.moves("the kernel forwards", n.relayed)
				n.detach()
				n.moves("the loop forwards", loop)
			}
			close(done)
			if err := <-flowing; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestKernelIsEmptyAfterClose checks that the server counts all packets that the kernel has
// forwarded, and leaves nothing in the program when it is closed.
func TestKernelIsEmptyAfterClose(t *testing.T) {
	f := kernelFamilies[0]
	n := newInternet(t, (*internet).oneNIC, f)
	n.attach(xdp.Generic)
	a, b := n.connect(f)
	n.transfer(a, b, 4<<20)
	if err := n.server.Close(); err != nil {
		t.Fatal(err)
	}
	s := n.server.Stats()
	if s.OffloadedPackets != n.relayed() || s.OffloadErrors != 0 {
		t.Errorf("the relay has counted %d packets of the kernel's %d, and %d errors", s.OffloadedPackets, n.relayed(), s.OffloadErrors)
	}
	for index := range xdptest.Relay(n, n.program).Sessions() {
		if traffic, err := xdptest.Relay(n, n.program).Traffic(index); err != nil || traffic != [2]datapath.Traffic{} {
			t.Errorf("session %d is left: %+v, %v", index, traffic, err)
		}
	}
	for r := range xdptest.Relay(n, n.program).Routes() {
		t.Errorf("an ID of session %d is left", r.Session)
	}
}

// TestProgramWithoutRelayStage checks that a server refuses a program that was loaded
// without the relay stage.
func TestProgramWithoutRelayStage(t *testing.T) {
	program := xdptest.Load(t, &xdp.Config{Stages: []xdp.Stage{xdp.QuotaStage}})
	s, err := relay.Listen(t.Context(), "udp", "127.0.0.1:0", &relay.Config{XDP: program})
	if err == nil {
		s.Close()
	}
	if !errors.Is(err, relay.ErrConfig) || !strings.Contains(err.Error(), "relay stage") {
		t.Errorf("%v, want an error that wraps %v and names the stage", err, relay.ErrConfig)
	}
}
