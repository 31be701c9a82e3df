package splice

import (
	"encoding/binary"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// newVeth creates the veth pair q0 and q1, and returns their interfaces.
func newVeth(t *testing.T) (q0, q1 *net.Interface) { return newVethAs(t, "q0", "q1") }

func newVethAs(t *testing.T, name, peer string) (a, b *net.Interface) {
	t.Helper()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer}
	if err := netlink.LinkAdd(veth); err != nil {
		nettest.Missing(t, "creating an interface failed: "+err.Error())
	}
	ends := make([]*net.Interface, 2)
	for i, name := range []string{name, peer} {
		nettest.Sysctl(t, "net/ipv6/conf/"+name+"/accept_dad", "0") // addresses are valid at once
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err == nil {
			ends[i], err = net.InterfaceByName(name)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return ends[0], ends[1]
}

// tap is a packet socket on an interface.
type tap struct {
	t       *testing.T
	fd      int
	headers bool
}

func newTap(t *testing.T, iface *net.Interface) *tap {
	t.Helper()
	all := int(uint16(unix.ETH_P_ALL)>>8 | uint16(unix.ETH_P_ALL)<<8)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: iface.Index}); err != nil {
		t.Fatal(err)
	}
	timeout := unix.NsecToTimeval(int64(5 * time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	return &tap{t: t, fd: fd}
}

// offload makes frames begin with a virtioHeader.
func (p *tap) offload() {
	p.t.Helper()
	if err := unix.SetsockoptInt(p.fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		p.t.Fatal(err)
	}
	p.headers = true
}

// virtioHeader says what an interface has to complete: struct virtio_net_hdr of the kernel.
type virtioHeader struct {
	flags, gsoType                            uint8
	headers, gsoSize, checksumAt, checksumOff uint16
}

const virtioHeaderSize = 10

func (h *virtioHeader) append(b []byte) []byte {
	b = append(b, h.flags, h.gsoType)
	for _, x := range []uint16{h.headers, h.gsoSize, h.checksumAt, h.checksumOff} {
		b = binary.NativeEndian.AppendUint16(b, x)
	}
	return b
}

func parseVirtioHeader(b []byte) virtioHeader {
	at := binary.NativeEndian.Uint16
	return virtioHeader{b[0], b[1], at(b[2:]), at(b[4:]), at(b[6:]), at(b[8:])}
}

// receive returns the next frame with TCP that arrives.
func (p *tap) receive() []byte {
	p.t.Helper()
	b := make([]byte, 8192)
	skip := 0
	if p.headers {
		skip = virtioHeaderSize
	}
	for {
		n, from, err := unix.Recvfrom(p.fd, b, 0)
		if err != nil {
			p.t.Fatalf("no frame: %v", err)
		}
		if n < skip {
			continue
		}
		_, protocol, _, ok := viewIP(b[skip:n], 0)
		if ok && protocol == 6 && from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_OUTGOING {
			return b[:n]
		}
	}
}

func (p *tap) inject(frame []byte) {
	p.t.Helper()
	if _, err := unix.Write(p.fd, frame); err != nil {
		p.t.Fatal(err)
	}
}

// TestArriving checks frames that arrive at an attached interface: those of a flow are forwarded, and
// those with a VLAN tag or for another host are left alone, though the network stack shows them to
// the program without the tag.
func TestArriving(t *testing.T) {
	t.Parallel()
	nettest.Namespace(t)
	q0, q1 := newVeth(t)
	r := newRig(t)
	if err := r.program.Attach("q0"); err != nil {
		t.Fatal(err)
	}
	pair := pairIn(0, hold) // counts packets, and sends none
	r.program.pairs.pairs[0] = pair
	tap := newTap(t, q1)
	frame := newSegment(0, fromClient).build()
	copy(frame, slices.Concat(q0.HardwareAddr, q1.HardwareAddr))
	tagged := slices.Concat(frame[:12], []byte{0x81, 0, 0, 5}, frame[12:])
	elsewhere := slices.Clone(frame)
	elsewhere[5] ^= 1
	for _, test := range []struct {
		name  string
		frame []byte
		seen  uint64
	}{{"a VLAN tag", tagged, 0}, {"another MAC address", elsewhere, 0}, {"for us", frame, 1}} {
		r.counted()
		tap.inject(test.frame)
		tap.inject(frame) // frames arrive in order: when this one is counted, the first one was seen
		var n uint64
		for deadline := time.Now().Add(5 * time.Second); n < 1+test.seen && time.Now().Before(deadline); {
			n += r.counted()[DroppedHold]
		}
		if n != 1+test.seen {
			t.Errorf("%s: %d frames were handled, want %d", test.name, n, 1+test.seen)
		}
	}
}

// TestRedirect checks that a packet that arrives on one interface leaves on the other, with the
// link-layer addresses of the next hop, though this host does not forward packets.
func TestRedirect(t *testing.T) {
	t.Parallel()
	for family, name := range familyNames {
		t.Run(name, func(t *testing.T) {
			nettest.Namespace(t)
			q0, q1 := newVeth(t)
			u0, u1 := newVethAs(t, "u0", "u1")
			route(t, u0, u1, family)
			r := newRig(t)
			if err := r.program.Attach("q0"); err != nil {
				t.Fatal(err)
			}
			pair := pairIn(family, active)
			pair.Halves[fromClient].Ifindex = uint32(u0.Index)
			r.program.pairs.pairs[family] = pair
			out, in := newTap(t, u1), newTap(t, q1)
			s := newSegment(family, fromClient)
			s.payload, s.options = []byte("data"), stamps(1, 2)
			frame := s.build()
			m := &model{pair: pair, counters: make(map[Reason]uint64)}
			_, want := m.ingress(slices.Clone(frame), 0)
			copy(want, slices.Concat(u1.HardwareAddr, u0.HardwareAddr))
			copy(frame, slices.Concat(q0.HardwareAddr, q1.HardwareAddr))
			in.inject(frame)
			if got := out.receive(); !sameFrame(got, want) {
				t.Errorf("frame\n%x, want\n%x", got, want)
			}
		})
	}
}

// route gives an interface the address that packets to the upstream come from, and the upstream as a
// neighbor at the other end of the cable.
func route(t *testing.T, iface, peer *net.Interface, family int) {
	t.Helper()
	l, err := netlink.LinkByIndex(iface.Index)
	if err != nil {
		t.Fatal(err)
	}
	local, bits := dialers[family].Addr(), []int{24, 64}[family]
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: local.AsSlice(), Mask: net.CIDRMask(bits, local.BitLen())}, Flags: unix.IFA_F_NODAD}
	if err := netlink.AddrAdd(l, addr); err != nil {
		t.Fatal(err)
	}
	n := &netlink.Neigh{LinkIndex: iface.Index, IP: upstreams[family].Addr().AsSlice(), HardwareAddr: peer.HardwareAddr, State: netlink.NUD_PERMANENT}
	if err := netlink.NeighAdd(n); err != nil {
		t.Fatal(err)
	}
}

// TestOffloads checks a packet whose checksum an interface has to complete, and that it has to cut
// into segments: it stays so, and the part of the checksum that it has is that of the new addresses.
func TestOffloads(t *testing.T) {
	t.Parallel()
	for family, name := range familyNames {
		t.Run(name, func(t *testing.T) {
			nettest.Namespace(t)
			q0, q1 := newVeth(t)
			u0, u1 := newVethAs(t, "u0", "u1")
			route(t, u0, u1, family)
			r := newRig(t)
			if err := r.program.Attach("q0"); err != nil {
				t.Fatal(err)
			}
			pair := pairIn(family, active)
			pair.Halves[fromClient].Ifindex = uint32(u0.Index)
			pair.Halves[fromClient].Mtu = 1500
			r.program.pairs.pairs[family] = pair
			out, in := newTap(t, u1), newTap(t, q1)
			out.offload()
			in.offload()

			s := newSegment(family, fromClient)
			s.payload, s.options = make([]byte, 3000), stamps(1, 2)
			frame := s.build()
			v, _, rest, _ := viewIP(frame, 0)
			v.viewTCP(rest)
			m := &model{pair: pair, counters: make(map[Reason]uint64)}
			_, want := m.ingress(slices.Clone(frame), 1000)
			v.put16(v.tcp+16, fold(pseudo(v.src.Addr(), v.dst.Addr(), rest)))
			copy(frame, slices.Concat(q0.HardwareAddr, q1.HardwareAddr))
			h := virtioHeader{flags: 1, gsoType: []uint8{1, 4}[family], headers: uint16(v.tcp + v.header), gsoSize: 1000, checksumAt: uint16(v.tcp), checksumOff: 16}
			in.inject(append(h.append(nil), frame...))

			w, _, rest, _ := viewIP(want, 0)
			w.viewTCP(rest)
			w.put16(w.tcp+16, fold(pseudo(w.src.Addr(), w.dst.Addr(), rest)))
			copy(want, slices.Concat(u1.HardwareAddr, u0.HardwareAddr))
			got := out.receive()
			if header := parseVirtioHeader(got); header.flags != h.flags || header.gsoType != h.gsoType || header.gsoSize != h.gsoSize {
				t.Errorf("offloads %+v, want %+v", header, h)
			}
			if !sameFrame(got[virtioHeaderSize:], want) {
				t.Errorf("frame\n%x, want\n%x", got[virtioHeaderSize:][:80], want[:80])
			}
		})
	}
}
