package datapath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/packet"
)

// wire is a network namespace with an interface at which frames arrive, and another one.
type wire struct {
	testing.TB
	program *Program
	in, out *net.Interface
	key     cid.Key
}

const relayPort = 4433

// Addresses. Alice and Bob are in the network of the first interface, and Carol in that of the
// second.
var (
	relayAB = addrs{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd01::1")}
	relayC  = addrs{netip.MustParseAddr("10.2.0.1"), netip.MustParseAddr("fd02::1")}
	alice   = addrs{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd01::2")}
	bob     = addrs{netip.MustParseAddr("10.1.0.3"), netip.MustParseAddr("fd01::3")}
	carol   = addrs{netip.MustParseAddr("10.2.0.2"), netip.MustParseAddr("fd02::2")}
	// silent does not answer neighbor discovery, and stray is not a peer.
	silent = addrs{netip.MustParseAddr("10.1.0.9"), netip.MustParseAddr("fd01::9")}
	stray  = addrs{netip.MustParseAddr("10.1.0.7"), netip.MustParseAddr("fd01::7")}
)

// addrs are the addresses of a host: IPv4 and IPv6.
type addrs [2]netip.Addr

func (a addrs) at(family int, port uint16) netip.AddrPort { return netip.AddrPortFrom(a[family], port) }

var (
	peerMAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	edgeMAC = net.HardwareAddr{2, 0, 0, 0, 0, 99} // the router that sends the frames
)

// newWire creates the interfaces, loads the program, and attaches it.
func newWire(t *testing.T) *wire {
	t.Helper()
	return newWireFor(t, &Config{Sessions: 16})
}

func newWireFor(t testing.TB, conf *Config) *wire {
	t.Helper()
	nettest.Namespace(t)
	w := &wire{TB: t, key: cid.NewKey()}
	w.in = w.link("in0", relayAB, alice, bob)
	w.out = w.link("out0", relayC, carol)
	p := mustLoad(t, conf)
	w.program = p
	for _, name := range []string{"in0", "out0"} {
		if _, err := p.Attach(name, Auto); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.relay.OpenPort(relayPort); err != nil {
		t.Fatal(err)
	}
	return w
}

// link creates an interface with addresses of the relay and neighbours.
func (w *wire) link(name string, relay addrs, peers ...addrs) *net.Interface {
	w.Helper()
	w.veth(name)
	return w.address(name, relay, peers...)
}

// veth creates a pair of interfaces, and sets both up.
func (w *wire) veth(name string) netlink.Link {
	w.Helper()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
	if err := netlink.LinkAdd(veth); err != nil {
		w.Fatal(err)
	}
	// IPv6 would send packets at the other end, which would change counters.
	nettest.Sysctl(w, "net/ipv6/conf/"+name+"p/disable_ipv6", "1")
	for _, end := range []string{name, name + "p"} {
		l, err := netlink.LinkByName(end)
		if err != nil {
			w.Fatal(err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			w.Fatal(err)
		}
	}
	return veth
}

// address adds addresses of the relay and neighbours to an interface.
func (w *wire) address(name string, relay addrs, peers ...addrs) *net.Interface {
	w.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		w.Fatal(err)
	}
	for family, addr := range relay {
		bits := [2]int{24, 64}[family]
		mask := net.CIDRMask(bits, addr.BitLen())
		a := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: mask}, Flags: 0x02 /* nodad */}
		if err := netlink.AddrAdd(l, a); err != nil {
			w.Fatal(err)
		}
		for _, peer := range peers {
			n := &netlink.Neigh{LinkIndex: l.Attrs().Index, IP: peer[family].AsSlice(), HardwareAddr: peerMAC, State: netlink.NUD_PERMANENT}
			if err := netlink.NeighAdd(n); err != nil {
				w.Fatal(err)
			}
		}
	}
	nettest.Sysctl(w, "net/ipv4/conf/"+name+"/forwarding", "1")
	nettest.Sysctl(w, "net/ipv6/conf/"+name+"/forwarding", "1")
	iface, err := net.InterfaceByName(name)
	if err != nil {
		w.Fatal(err)
	}
	return iface
}

// session adds session 3 between alice and a peer, with IDs that lead to leg 1, the peer.
func (w *wire) session(family int, peer, relay addrs) {
	w.Helper()
	legs := [2]Leg{
		{Remote: alice.at(family, 1000), Local: relayAB.at(family, relayPort)},
		{Remote: peer.at(family, 2000), Local: relay.at(family, relayPort)},
	}
	if err := w.program.relay.PutSession(3, legs); err != nil {
		w.Fatal(err)
	}
	for counter := range uint64(8) {
		if err := w.program.relay.PutRoute(w.key.ID(cid.Peer, counter), Route{Session: 3, Leg: 1, Counter: counter}); err != nil {
			w.Fatal(err)
		}
	}
	if err := w.program.relay.SetDue(3, 1, 4); err != nil {
		w.Fatal(err)
	}
}

// good returns a frame from alice that is relayed.
func (w *wire) good(family int) packet.Frame {
	payload := append([]byte{0x45}, w.key.ID(cid.Peer, 0).Bytes()...)
	payload = append(payload, bytes.Repeat([]byte("payload "), 20)...)
	return packet.Frame{
		Src: alice.at(family, 1000), Dst: relayAB.at(family, relayPort),
		TTL: 64, TOS: 0xb9, Payload: payload, ID: 0x1234, Flags: packet.DontFragment,
	}
}

// relayed returns the frame that the relay sends for a frame from alice.
func relayed(f packet.Frame, peer, relay addrs) packet.Frame {
	family := frameFamily(&f)
	f.Src, f.Dst = relay.at(family, relayPort), peer.at(family, 2000)
	f.TTL--
	return f
}

func frameFamily(f *packet.Frame) int {
	if f.Src.Addr().Is4() {
		return 0
	}
	return 1
}

// run runs the program on a frame, and checks the verdict and that only one counter has changed.
func (w *wire) run(in []byte, want Verdict, why Reason) []byte {
	w.Helper()
	before := w.stats()
	verdict, out, err := w.program.Test(w.in.Index, in)
	if err != nil {
		w.Fatal(err)
	}
	after := w.stats()
	for r := range numReasons {
		moved := after[r] - before[r]
		if r == why && moved != 1 || r != why && moved != 0 {
			w.Errorf("counter %v moved by %d", r, moved)
		}
	}
	if verdict != want {
		w.Errorf("verdict %d, want %d (%v)", verdict, want, why)
	}
	if want == Pass && !bytes.Equal(in, out) {
		w.Errorf("passed, but changed:\n%x\n%x", in, out)
	}
	return out
}

func (w *wire) stats() map[Reason]uint64 {
	w.Helper()
	s, err := w.program.Stats()
	if err != nil {
		w.Fatal(err)
	}
	return s
}

var families = []string{"IPv4", "IPv6"}

// TestForward checks that the program sends what a socket of the relay would send, with the ECN
// bits, DSCP, DF bit and IP ID of the received packet.
func TestForward(t *testing.T) {
	for family, name := range families {
		for _, to := range []struct {
			name        string
			peer, relay addrs
			verdict     Verdict
		}{{"same interface", bob, relayAB, TX}, {"another", carol, relayC, Redirect}} {
			t.Run(name+"/"+to.name, func(t *testing.T) {
				w := newWire(t)
				w.session(family, to.peer, to.relay)
				out := w.in
				if to.verdict == Redirect {
					out = w.out
				}
				for length := range 40 { // odd and even lengths, and different checksums
					f := w.good(family)
					f.Payload = append(f.Payload, bytes.Repeat([]byte{byte(length * 37)}, length)...)
					got := w.run(f.Build(edgeMAC, w.in.HardwareAddr), to.verdict, Relayed)
					r := relayed(f, to.peer, to.relay)
					if want := r.Build(out.HardwareAddr, peerMAC); !bytes.Equal(got, want) {
						t.Fatalf("length %d:\ngot  %x\nwant %x", length, got, want)
					}
				}
				traffic, err := w.program.relay.Traffic(3)
				if err != nil || traffic[1].Packets != 40 || traffic[0].Packets != 0 {
					t.Errorf("traffic %+v, %v", traffic, err)
				}
			})
		}
	}
}

// TestZeroChecksum checks that an IPv4 packet without UDP checksum is forwarded without one, that
// such an IPv6 packet is passed, and that a checksum of zero is sent as 0xffff (RFC 768).
func TestZeroChecksum(t *testing.T) {
	t.Run("none", func(t *testing.T) {
		w := newWire(t)
		w.session(0, bob, relayAB)
		f := w.good(0)
		f.NoChecksum = true
		got := w.run(f.Build(edgeMAC, w.in.HardwareAddr), TX, Relayed)
		r := relayed(f, bob, relayAB)
		if want := r.Build(w.in.HardwareAddr, peerMAC); !bytes.Equal(got, want) {
			t.Errorf("got  %x\nwant %x", got, want)
		}
	})
	t.Run("IPv6", func(t *testing.T) {
		w := newWire(t)
		w.session(1, bob, relayAB)
		f := w.good(1)
		f.NoChecksum = true
		w.run(f.Build(edgeMAC, w.in.HardwareAddr), Pass, PassMixed)
	})
	for family, name := range families {
		t.Run("becomes zero/"+name, func(t *testing.T) {
			w := newWire(t)
			w.session(family, bob, relayAB)
			f := w.good(family)
			f.Payload = append(f.Payload[:13:13], make([]byte, 51)...)
			for n := range 1 << 16 { // find the payload whose sum is zero afterwards
				binary.BigEndian.PutUint16(f.Payload[len(f.Payload)-2-len(f.Payload)%2:], uint16(n))
				r := relayed(f, bob, relayAB)
				b := r.Build(w.in.HardwareAddr, peerMAC)
				if at := len(b) - len(f.Payload) - 2; binary.BigEndian.Uint16(b[at:]) == 0xffff {
					if got := w.run(f.Build(edgeMAC, w.in.HardwareAddr), TX, Relayed); !bytes.Equal(got, b) {
						t.Errorf("got  %x\nwant %x", got, b)
					}
					return
				}
			}
			t.Fatal("no payload has such a sum")
		})
	}
}

// TestPass checks that packets that the relay stage cannot forward with certainty are passed
// unchanged, and counted by their reason.
func TestPass(t *testing.T) {
	for family, name := range families {
		for what, test := range map[string]struct {
			change func(w *wire, f *packet.Frame)
			why    Reason
		}{
			"long header":      {func(_ *wire, f *packet.Frame) { f.Payload[0] = 0xc0 }, PassLong},
			"control ID":       {func(_ *wire, f *packet.Frame) { f.Payload[1] |= 0x80 }, PassControl},
			"unknown ID":       {func(_ *wire, f *packet.Frame) { f.Payload[5]++ }, PassUnknown},
			"ID cut":           {func(_ *wire, f *packet.Frame) { f.Payload = f.Payload[:12] }, PassShort},
			"no payload":       {func(_ *wire, f *packet.Frame) { f.Payload = nil }, PassShort},
			"padded ID":        {func(_ *wire, f *packet.Frame) { f.Payload = f.Payload[:12]; f.Pad = 20 }, PassShort},
			"not relay port":   {func(_ *wire, f *packet.Frame) { f.Dst = netip.AddrPortFrom(f.Dst.Addr(), 53) }, PassOther},
			"other address":    {func(_ *wire, f *packet.Frame) { f.Src = stray.at(frameFamily(f), 1000) }, PassSource},
			"other port":       {func(_ *wire, f *packet.Frame) { f.Src = netip.AddrPortFrom(f.Src.Addr(), 1001) }, PassSource},
			"the leg itself":   {func(_ *wire, f *packet.Frame) { f.Src = bob.at(frameFamily(f), 2000) }, PassSource},
			"other local addr": {func(_ *wire, f *packet.Frame) { f.Dst = relayC.at(frameFamily(f), relayPort) }, PassSource},
			"not local":        {func(_ *wire, f *packet.Frame) { f.Dst = stray.at(frameFamily(f), relayPort) }, PassSource},
			"TTL 1":            {func(_ *wire, f *packet.Frame) { f.TTL = 1 }, PassTTL},
			"TTL 0":            {func(_ *wire, f *packet.Frame) { f.TTL = 0 }, PassTTL},
			"VLAN":             {func(_ *wire, f *packet.Frame) { f.VLAN = true }, PassOther},
			"UDP too long":     {func(_ *wire, f *packet.Frame) { f.UDPLen = 9 + len(f.Payload) }, PassOther},
			"UDP too short":    {func(_ *wire, f *packet.Frame) { f.UDPLen = 7 + len(f.Payload) }, PassOther},
			"options":          {func(_ *wire, f *packet.Frame) { f.Options, f.Next = true, 60 }, PassOther},
			"fragment":         {func(_ *wire, f *packet.Frame) { f.Flags, f.Next = 0x2000, 44 }, PassOther},
			"later fragment":   {func(_ *wire, f *packet.Frame) { f.Flags, f.Next = 0x0010, 44 }, PassOther},
			"too long for MTU": {func(_ *wire, f *packet.Frame) { f.Payload = append(f.Payload, make([]byte, 1500)...) }, PassNoRoute},
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				w := newWire(t)
				w.session(family, bob, relayAB)
				f := w.good(family)
				test.change(w, &f)
				w.run(f.Build(edgeMAC, w.in.HardwareAddr), Pass, test.why)
				// The session still works.
				good := w.good(family)
				w.run(good.Build(edgeMAC, w.in.HardwareAddr), TX, Relayed)
			})
		}
	}
}

// TestPassWithoutRoute checks that packets are passed if the kernel knows no neighbour, if
// forwarding is disabled, or if the program is not attached to the interface of the next hop.
func TestPassWithoutRoute(t *testing.T) {
	for family, name := range families {
		t.Run(name+"/no neighbour", func(t *testing.T) {
			w := newWire(t)
			w.session(family, silent, relayAB)
			f := w.good(family)
			w.run(f.Build(edgeMAC, w.in.HardwareAddr), Pass, PassNoRoute)
		})
		t.Run(name+"/no forwarding", func(t *testing.T) {
			w := newWire(t)
			w.session(family, bob, relayAB)
			nettest.Sysctl(t, "net/"+[]string{"ipv4", "ipv6"}[family]+"/conf/in0/forwarding", "0")
			f := w.good(family)
			w.run(f.Build(edgeMAC, w.in.HardwareAddr), Pass, PassNoRoute)
		})
		t.Run(name+"/not attached", func(t *testing.T) {
			w := newWire(t)
			w.session(family, carol, relayC)
			f := w.good(family)
			w.run(f.Build(edgeMAC, w.in.HardwareAddr), Redirect, Relayed)
			if err := w.program.Detach("out0"); err != nil {
				t.Fatal(err)
			}
			w.run(f.Build(edgeMAC, w.in.HardwareAddr), Pass, PassNoRoute)
		})
	}
}

// TestTooLongForKnownHop checks that a packet that exceeds the MTU of a cached next hop is
// passed, so that the kernel fragments or refuses it.
func TestTooLongForKnownHop(t *testing.T) {
	for family, name := range families {
		t.Run(name, func(t *testing.T) {
			w := newWire(t)
			w.session(family, carol, relayC)
			out, err := netlink.LinkByName("out0")
			if err != nil {
				t.Fatal(err)
			}
			if err := netlink.LinkSetMTU(out, 1300); err != nil {
				t.Fatal(err)
			}
			short, long := w.good(family), w.good(family)
			long.Payload = append(long.Payload, bytes.Repeat([]byte{1}, 1200)...)
			for range 2 {
				w.run(short.Build(edgeMAC, w.in.HardwareAddr), Redirect, Relayed)
				w.run(long.Build(edgeMAC, w.in.HardwareAddr), Pass, PassNoRoute)
			}
		})
	}
}

// TestMixedFamilies checks that packets between an IPv4 leg and an IPv6 leg are passed to Go.
func TestMixedFamilies(t *testing.T) {
	w := newWire(t)
	w.session(0, bob, relayAB)
	legs := [2]Leg{
		{Remote: alice.at(0, 1000), Local: relayAB.at(0, relayPort)},
		{Remote: bob.at(1, 2000), Local: relayAB.at(1, relayPort)},
	}
	if err := w.program.relay.PutSession(3, legs); err != nil {
		t.Fatal(err)
	}
	f := w.good(0)
	w.run(f.Build(edgeMAC, w.in.HardwareAddr), Pass, PassMixed)
}

// TestLegMoves checks that PutSession moves a leg and keeps its counters, that packets are passed
// without legs, and that DeleteSession clears the counters.
func TestLegMoves(t *testing.T) {
	w := newWire(t)
	w.session(0, bob, relayAB)
	f := w.good(0)
	w.run(f.Build(edgeMAC, w.in.HardwareAddr), TX, Relayed)
	w.session(0, carol, relayC)
	got := w.run(f.Build(edgeMAC, w.in.HardwareAddr), Redirect, Relayed)
	r := relayed(f, carol, relayC)
	if want := r.Build(w.out.HardwareAddr, peerMAC); !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	if err := w.program.relay.PutSession(3, [2]Leg{}); err != nil {
		t.Fatal(err)
	}
	w.run(f.Build(edgeMAC, w.in.HardwareAddr), Pass, PassSource)
	if traffic, err := w.program.relay.Traffic(3); err != nil || traffic[1].Packets != 2 {
		t.Errorf("traffic %+v, %v: a leg that moves keeps its counters", traffic, err)
	}
	if err := w.program.relay.DeleteSession(3); err != nil {
		t.Fatal(err)
	}
	if traffic, err := w.program.relay.Traffic(3); err != nil || traffic[1].Packets != 0 {
		t.Errorf("traffic %+v, %v after DeleteSession", traffic, err)
	}
}

// TestEvents checks that an ID that is due is reported, and earlier IDs are not.
func TestEvents(t *testing.T) {
	w := newWire(t)
	w.session(0, bob, relayAB)
	for _, counter := range []uint64{0, 3, 5} {
		f := w.good(0)
		copy(f.Payload[1:], w.key.ID(cid.Peer, counter).Bytes())
		w.run(f.Build(edgeMAC, w.in.HardwareAddr), TX, Relayed)
	}
	for e := range w.program.relay.Events(t.Context()) {
		want := Event{Session: 3, Leg: 1, Counter: 5, version: e.version}
		if e != want || !w.program.relay.Current(e) {
			t.Errorf("event %+v, want %+v, which is current", e, want)
		}
		return
	}
	t.Error("no event")
}

// TestVoidEvents checks that an event is no longer current when its session was deleted or has other legs,
// also if another session has come.
func TestVoidEvents(t *testing.T) {
	for what, change := range map[string]func(w *wire) error{
		"deleted":    func(w *wire) error { return w.program.relay.DeleteSession(3) },
		"other legs": func(w *wire) error { return w.program.relay.PutSession(3, legsAt(localOf(1), localOf(2))) },
		"another": func(w *wire) error {
			err := w.program.relay.DeleteSession(3)
			w.session(0, bob, relayAB)
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWire(t)
			w.session(0, bob, relayAB)
			relay := &w.program.relay
			f := w.good(0)
			copy(f.Payload[1:], w.key.ID(cid.Peer, 5).Bytes())
			w.run(f.Build(edgeMAC, w.in.HardwareAddr), TX, Relayed)
			for e := range relay.Events(t.Context()) {
				if !relay.Current(e) {
					t.Errorf("event %+v is not current before", e)
				}
				if err := change(w); err != nil || relay.Current(e) {
					t.Errorf("event %+v is current after, or %v", e, err)
				}
				break
			}
			for _, e := range []Event{{Session: 16}, {Session: 3, Leg: 2}} {
				if relay.Current(e) {
					t.Errorf("event %+v is current, though there is no such leg", e)
				}
			}
		})
	}
}

// TestEventsOverflow checks that events are counted as lost and repeated later if the ring is full,
// and that the packets are relayed meanwhile.
func TestEventsOverflow(t *testing.T) {
	const sessions = 4096 // more than events fit into the ring
	w := newWireFor(t, &Config{Sessions: sessions, IDs: sessions + 8})
	if err := w.program.relay.OpenPort(relayPort); err != nil {
		t.Fatal(err)
	}
	legs := [2]Leg{
		{Remote: alice.at(0, 1000), Local: relayAB.at(0, relayPort)},
		{Remote: bob.at(0, 2000), Local: relayAB.at(0, relayPort)},
	}
	send := func(session uint32) {
		f := w.good(0)
		copy(f.Payload[1:], w.key.ID(cid.Peer, uint64(session)).Bytes())
		verdict, _, err := w.program.Test(w.in.Index, f.Build(edgeMAC, w.in.HardwareAddr))
		if verdict != TX || err != nil {
			t.Fatalf("verdict %d, %v", verdict, err)
		}
	}
	for session := range uint32(sessions) {
		err := errors.Join(
			w.program.relay.PutSession(session, legs),
			w.program.relay.PutRoute(w.key.ID(cid.Peer, uint64(session)), Route{Session: session, Leg: 1}),
		)
		if err != nil {
			t.Fatal(err)
		}
		send(session)
	}
	stats, err := w.program.Stats()
	if err != nil || stats[EventLost] == 0 || stats[Relayed] != sessions {
		t.Fatalf("%v, %v, want events lost and %d packets relayed", stats, err, sessions)
	}
	last := uint32(sessions - 1) // certainly lost
	for e := range w.program.relay.Events(t.Context()) {
		if e.Session == last {
			return
		}
		send(last)
	}
	t.Error("a lost event is not repeated")
}

// TestNextHopAges checks that a next hop is cached, and looked up again after a while.
func TestNextHopAges(t *testing.T) {
	w := newWire(t)
	w.session(0, bob, relayAB)
	f := w.good(0)
	frame := f.Build(edgeMAC, w.in.HardwareAddr)
	w.run(frame, TX, Relayed)
	other := net.HardwareAddr{2, 0, 0, 0, 0, 99}
	neigh := &netlink.Neigh{LinkIndex: w.in.Index, IP: bob.at(0, 0).Addr().AsSlice(), HardwareAddr: other, State: netlink.NUD_PERMANENT}
	if err := netlink.NeighSet(neigh); err != nil {
		t.Fatal(err)
	}
	if got := w.run(frame, TX, Relayed); bytes.Equal(got[:6], other) {
		t.Error("the next hop was looked up for each packet")
	}
	nettest.Eventually(t, "the next hop is looked up again", func() bool {
		got := w.run(frame, TX, Relayed)
		return bytes.Equal(got[:6], other)
	})
}

// TestOtherProtocols checks that frames of other protocols, and with wrong IP headers, pass
// unchanged.
func TestOtherProtocols(t *testing.T) {
	w := newWire(t)
	w.session(0, bob, relayAB)
	quic := w.good(0)
	base := quic.Build(edgeMAC, w.in.HardwareAddr)
	for name, change := range map[string]func(b []byte){
		"ARP":         func(b []byte) { b[12], b[13] = 0x08, 0x06 },
		"TCP":         func(b []byte) { b[23] = 6 },
		"ICMP":        func(b []byte) { b[23] = 1 },
		"UDP-Lite":    func(b []byte) { b[23] = 136 },
		"IPv4 in 5":   func(b []byte) { b[14] = 0x55 },
		"short IHL":   func(b []byte) { b[14] = 0x44 },
		"DNS":         func(b []byte) { binary.BigEndian.PutUint16(b[36:], 53) },
		"IPv6 of 4":   func(b []byte) { b[12], b[13] = 0x86, 0xdd },
		"length zero": func(b []byte) { binary.BigEndian.PutUint16(b[16:], 0) },
		"length over": func(b []byte) { binary.BigEndian.PutUint16(b[16:], 9000) },
	} {
		b := bytes.Clone(base)
		change(b)
		verdict, out, err := w.program.Test(w.in.Index, b)
		if verdict != Pass || err != nil || !bytes.Equal(out, b) {
			t.Errorf("%s: verdict %d, %v, changed: %v", name, verdict, err, !bytes.Equal(out, b))
		}
	}
	w.run(base, TX, Relayed)
}

// TestOtherTraffic checks that truncated frames and random bytes of all lengths pass unchanged.
// Frames shorter than an Ethernet header cannot be tested, and do not occur.
func TestOtherTraffic(t *testing.T) {
	w := newWire(t)
	w.session(0, bob, relayAB)
	rng := rand.New(rand.NewPCG(1, 1))
	for length := 14; length <= 128; length++ {
		for family := range families {
			f := w.good(family)
			whole := f.Build(edgeMAC, w.in.HardwareAddr)
			verdict, out, err := w.program.Test(w.in.Index, whole[:length])
			if err != nil || verdict != Pass || !bytes.Equal(out, whole[:length]) {
				t.Fatalf("%s cut after %d bytes: verdict %d, %v", families[family], length, verdict, err)
			}
		}
		noise := make([]byte, length)
		for i := range noise {
			noise[i] = byte(rng.Uint32())
		}
		verdict, out, err := w.program.Test(w.in.Index, noise)
		if err != nil || verdict != Pass || !bytes.Equal(out, noise) {
			t.Fatalf("noise of %d bytes: verdict %d, %v", length, verdict, err)
		}
	}
}
