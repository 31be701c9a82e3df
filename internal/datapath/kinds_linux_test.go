package datapath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/packet"
)

// ifaceKind is a kind of interface, on top of the veth in0, whose peer is in0p.
type ifaceKind struct {
	name   string
	link   func(base netlink.Link) netlink.Link // returns the interface k0
	port   bool                                 // in0 becomes a port of k0
	tagged bool                                 // frames at in0p have a VLAN tag
}

const kindVLAN = 5

var ifaceKinds = []ifaceKind{
	{name: "vlan", tagged: true, link: func(base netlink.Link) netlink.Link {
		return &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "k0", ParentIndex: base.Attrs().Index}, VlanId: kindVLAN}
	}},
	{name: "bridge", port: true, link: func(netlink.Link) netlink.Link {
		return &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "k0"}}
	}},
	{name: "bond", port: true, link: func(netlink.Link) netlink.Link {
		bond := netlink.NewLinkBond(netlink.LinkAttrs{Name: "k0"})
		bond.Mode = netlink.BOND_MODE_ACTIVE_BACKUP
		return bond
	}},
	{name: "macvlan", link: func(base netlink.Link) netlink.Link {
		return &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "k0", ParentIndex: base.Attrs().Index}, Mode: netlink.MACVLAN_MODE_BRIDGE}
	}},
}

// newKind creates an interface. It skips the test if the kernel's module is missing.
func newKind(t *testing.T, link netlink.Link) {
	t.Helper()
	nettest.Modular(t, "interface of kind "+link.Type(), netlink.LinkAdd(link))
}

// TestInterfaceKinds checks that Auto chooses generic mode on these kinds of interfaces, and that
// all stages see packets there: the relay stage forwards one, the quota stage drops one of a
// denied source, and the monitor stage reports both.
func TestInterfaceKinds(t *testing.T) {
	for _, k := range ifaceKinds {
		t.Run(k.name, func(t *testing.T) {
			nettest.Namespace(t)
			w := &wire{TB: t, key: cid.NewKey()}
			base := w.veth("in0")
			link := k.link(base)
			newKind(t, link)
			w.raise(link, base, k.port)
			w.in = w.address("k0", relayAB, alice, bob)
			w.program = mustLoad(t, &Config{Stages: []Stage{RelayStage, QuotaStage, MonitorStage}, Sessions: 16, Flows: 16})
			mode, err := w.program.Attach("k0", Auto)
			if mode != Generic || err != nil {
				t.Fatalf("%v, %v, want %v", mode, err, Generic)
			}
			if err := w.program.relay.OpenPort(relayPort); err != nil {
				t.Fatal(err)
			}
			w.session(0, bob, relayAB)
			w.forwardsOne(k)
			w.dropsDenied(k)
			stats, err := w.program.Stats()
			if err != nil || stats[MonitorReported] != 2 {
				t.Errorf("%v, %v, want two packets reported", stats, err)
			}
		})
	}
}

// raise sets an interface up. If in0 is a port of it, in0 is added before.
func (w *wire) raise(link, base netlink.Link, port bool) {
	w.Helper()
	if port {
		err := errors.Join(netlink.LinkSetDown(base), netlink.LinkSetMaster(base, link), netlink.LinkSetUp(base))
		if err != nil {
			w.Fatal(err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		w.Fatal(err)
	}
}

// forwardsOne sends a packet of alice at in0p until it returns as a packet to bob. It repeats the
// packet because an interface may need a while to come up.
func (w *wire) forwardsOne(k ifaceKind) {
	w.Helper()
	cable := openCable(w, "in0p")
	frame := w.good(0)
	in := frame.Build(edgeMAC, w.in.HardwareAddr)
	out := relayed(frame, bob, relayAB)
	want := out.Build(w.in.HardwareAddr, peerMAC)
	if k.tagged {
		in = withTag(in)
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		cable.send(in)
		for got := cable.next(); got != nil; got = cable.next() {
			if bytes.Equal(got, want) {
				return
			}
		}
	}
	w.Errorf("no packet is forwarded; counters %v", w.stats())
}

// dropsDenied sends packets of a denied source until the quota stage has dropped one.
func (w *wire) dropsDenied(k ifaceKind) {
	w.Helper()
	quota, err := w.program.Quota()
	if err != nil {
		w.Fatal(err)
	}
	denied := carol.at(0, 3000)
	err = errors.Join(
		quota.SetPolicy(&QuotaPolicy{IPv4Bits: 32, IPv6Bits: 64, Patience: time.Hour}),
		quota.Put(DenyList, netip.PrefixFrom(denied.Addr(), 32), time.Hour),
		quota.Guard(guardPort, 8),
		quota.Renew(time.Hour),
	)
	if err != nil {
		w.Fatal(err)
	}
	frame := packet.Frame{Src: denied, Dst: relayAB.at(0, guardPort), TTL: 64, Payload: initialWith()}
	in := frame.Build(edgeMAC, w.in.HardwareAddr)
	if k.tagged {
		in = withTag(in)
	}
	cable := openCable(w, "in0p")
	for deadline := time.Now().Add(30 * time.Second); w.stats()[QuotaDenied] == 0; cable.next() {
		if time.Now().After(deadline) {
			w.Fatalf("no packet of a denied source is dropped; counters %v", w.stats())
		}
		cable.send(in)
	}
}

// withTag puts a VLAN tag into a frame.
func withTag(frame []byte) []byte {
	return append(append(append([]byte{}, frame[:12]...), 0x81, 0, 0, kindVLAN), frame[12:]...)
}

// cable is a raw socket on an interface.
type cable struct {
	testing.TB
	fd int
	to unix.SockaddrLinklayer
}

func openCable(tb testing.TB, name string) *cable {
	tb.Helper()
	iface, err := net.InterfaceByName(name)
	if err != nil {
		tb.Fatal(err)
	}
	// The protocol is in network byte order.
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(all))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unix.Close(fd) })
	c := &cable{TB: tb, fd: fd, to: unix.SockaddrLinklayer{Protocol: all, Ifindex: iface.Index}}
	wait := unix.Timeval{Usec: 200_000}
	if err := errors.Join(unix.Bind(fd, &c.to), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)); err != nil {
		tb.Fatal(err)
	}
	return c
}

func (c *cable) send(frame []byte) {
	c.Helper()
	if err := unix.Sendto(c.fd, frame, 0, &c.to); err != nil {
		c.Fatal(err)
	}
}

// next returns the next frame, or nil if there is none within 200 ms. The frame has no VLAN tag:
// the kernel removes it.
func (c *cable) next() []byte {
	c.Helper()
	buf := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil:
			c.Fatal(err)
		default:
			return buf[:n]
		}
	}
}

// TestInterfacesWithoutEthernet checks that interfaces without Ethernet headers are refused.
func TestInterfacesWithoutEthernet(t *testing.T) {
	for _, link := range []netlink.Link{
		&netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: "k0"}},
		&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "k0"}, Mode: netlink.TUNTAP_MODE_TUN},
	} {
		t.Run(link.Type(), func(t *testing.T) {
			nettest.Namespace(t)
			newKind(t, link)
			p := mustLoad(t, &Config{Stages: []Stage{RelayStage, QuotaStage, MonitorStage}, Sessions: 1, Flows: 16})
			if _, err := p.Attach("k0", Auto); !errors.Is(err, ErrUnsupported) {
				t.Errorf("%v, want %v", err, ErrUnsupported)
			}
		})
	}
}

// TestDummy checks that Auto works on a dummy interface, which receives no packets.
func TestDummy(t *testing.T) {
	nettest.Namespace(t)
	newKind(t, &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "k0"}})
	p := mustLoad(t, &Config{Sessions: 1})
	if mode, err := p.Attach("k0", Auto); mode != Generic || err != nil {
		t.Errorf("%v, %v, want %v", mode, err, Generic)
	}
}
