package relay_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/ipv4"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/relay"
	"github.com/quicway/quicway/xdp"
)

// stats returns the counters of the program.
func (n *internet) stats() map[xdp.Reason]uint64 {
	n.Helper()
	s, err := n.program.Stats()
	if err != nil {
		n.Fatal(err)
	}
	return s
}

// TestKernelFollowsRoamingLeg checks that the kernel forwards to a peer's new address when
// the address changes while packets flow.
func TestKernelFollowsRoamingLeg(t *testing.T) {
	for _, mode := range []xdp.Mode{xdp.Native, xdp.Generic} {
		t.Run(mode.String(), func(t *testing.T) {
			f := kernelFamilies[0]
			f.alice = "0.0.0.0:1000"
			n := newInternet(t, (*internet).twoNICs, f)
			n.attach(mode)
			a, b := n.connect(f)
			done := make(chan struct{})
			flowing := make(chan error, 2)
			go func() { flowing <- flow(a, b, done) }()
			go func() { flowing <- flow(b, a, done) }()
			n.moves("the kernel forwards", n.relayed)
			for i := range 2 {
				n.alice.Readdress("eth0", fmt.Sprintf("10.2.0.%d/24", 3+i), "fd02::2/64")
				nettest.Eventually(n, "the leg moves", func() bool { return n.server.Stats().Moved > uint64(i) })
				n.moves("after the peer has moved the kernel forwards", n.relayed)
			}
			close(done)
			for range 2 {
				if err := <-flowing; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestKernelRefusesOtherSources checks that the kernel forwards no packets from an address
// that is not the leg's, even if they have IDs of the session, and that Go forwards only a
// few.
func TestKernelRefusesOtherSources(t *testing.T) {
	const packets = 100
	f := kernelFamilies[0]
	n := newInternet(t, (*internet).oneNIC, f)
	n.attach(xdp.Generic)
	a, b := n.connect(f)
	n.transfer(a, b, 4<<20)
	liar := n.alice.Listen("10.2.0.2:666")
	defer liar.Close()
	before := n.stats()
	wrong := func() uint64 { return n.server.Stats().Dropped[relay.DropWrongSource] }
	ids := 0
	for _, id := range n.kernelIDs() {
		ids++
		packet := append(append([]byte{0x40}, id.Bytes()...), make([]byte, 1187)...)
		seen := wrong()
		nettest.Eventually(n, "Go drops them", func() bool {
			if _, err := liar.WriteTo(packet, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(f.relay))); err != nil {
				t.Fatal(err)
			}
			return wrong()-seen > packets
		})
	}
	after := n.stats()
	// Go forwards a few of the packets, which may move the window to other IDs.
	passed := after["pass_source"] - before["pass_source"] + after["pass_unknown"] - before["pass_unknown"]
	if ids == 0 || passed < uint64(ids)*packets {
		t.Errorf("%d packets with %d IDs were passed, want %d of each", passed, ids, packets)
	}
	if got := after["relayed"] - before["relayed"]; got > packets/2 {
		t.Errorf("the kernel has forwarded %d packets", got)
	}
	n.transfer(a, b, 4<<20)
}

// TestKernelPassesLastHop checks that the kernel passes packets with a TTL of 1 to Go,
// which drops and counts them. So packets cannot circulate for ever.
func TestKernelPassesLastHop(t *testing.T) {
	f := kernelFamilies[0]
	n := newInternet(t, (*internet).oneNIC, f)
	n.attach(xdp.Generic)
	conn := n.alice.Listen(f.alice)
	a, b := n.connectConn(f, conn)
	n.transfer(a, b, 4<<20)
	if err := ipv4.NewConn(conn).SetTTL(2); err != nil { // the router lowers it by one
		t.Fatal(err)
	}
	before, dropped := n.stats(), n.server.Stats().Dropped[relay.DropHopLimit]
	nettest.Eventually(n, "packets are dropped for their hop limit", func() bool {
		for _, id := range n.kernelIDs() {
			packet := append(append([]byte{0x40}, id.Bytes()...), make([]byte, 1187)...)
			if _, err := conn.WriteTo(packet, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(f.relay))); err != nil {
				t.Fatal(err)
			}
		}
		return n.server.Stats().Dropped[relay.DropHopLimit] > dropped && n.stats()["pass_ttl"] > before["pass_ttl"]
	})
	if err := ipv4.NewConn(conn).SetTTL(64); err != nil {
		t.Fatal(err)
	}
	n.transfer(a, b, 4<<20)
}

// TestKernelIsFull checks that Go forwards the sessions for which the kernel has no room.
// The errors are counted, and the first one is logged.
func TestKernelIsFull(t *testing.T) {
	for name, conf := range map[string]xdp.Config{"sessions": {Sessions: 1}, "IDs": {Sessions: 4, IDs: 4}} {
		t.Run(name, func(t *testing.T) {
			var log lockedBuffer
			f := kernelFamilies[0]
			n := newInternetWith(t, (*internet).oneNIC, f, &conf, slog.New(slog.NewTextHandler(&log, nil)))
			n.attach(xdp.Generic)
			for i := range 2 {
				own := f
				own.alice, own.bob = fmt.Sprintf("10.2.0.2:%d", 1000+i), fmt.Sprintf("10.3.0.2:%d", 2000+i)
				a, b := n.connect(own)
				n.transfer(a, b, 4<<20)
			}
			s := n.server.Stats()
			if s.OffloadErrors == 0 || s.ForwardedPackets < 4<<20/1452 {
				t.Errorf("%d errors, %d packets forwarded by Go", s.OffloadErrors, s.ForwardedPackets)
			}
			if lines := strings.Count(log.String(), "does not take all sessions"); lines != 1 {
				t.Errorf("logged %d times, want once:\n%s", lines, log.String())
			}
		})
	}
}

// lockedBuffer is a buffer that several goroutines may use.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestKernelJumboFrames checks that packets arrive with a large MTU: there is no native
// mode then, and the kernel forwards frames above 1500 bytes, or passes them to Go.
func TestKernelJumboFrames(t *testing.T) {
	f := kernelFamilies[0]
	n := newInternet(t, (*internet).twoNICs, f)
	for _, iface := range n.ifaces {
		n.relay.MTU(iface, 9000)
	}
	for _, h := range []*nettest.Host{n.alice, n.bob} {
		h.MTU("eth0", 9000)
	}
	for _, iface := range n.ifaces {
		n.relay.Do(func() error {
			mode, err := n.program.Attach(iface, xdp.Auto)
			if err == nil && mode != xdp.Generic {
				err = fmt.Errorf("attached in %v mode", mode)
			}
			return err
		})
	}
	a, b := n.connect(f)
	n.transfer(a, b, 16<<20)
	if n.relayed() < 1000 {
		t.Errorf("the kernel has forwarded %d packets", n.relayed())
	}
}
