package relay

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/datapath"

	"github.com/vishvananda/netlink"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/packet"
	"github.com/quicway/quicway/internal/test/xdptest"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/xdp"
)

// parity is a relay that forwards in the kernel and in its loop. Both get the same packets.
type parity struct {
	host    *nettest.Host
	iface   *net.Interface
	program *xdp.Program
	shards  [2]*shard // by family
	keys    [2]cid.Key
	peers   [2][2]netip.AddrPort // by family and leg
	local   [2]netip.AddrPort
}

var (
	parityNeighbour = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	paritySender    = net.HardwareAddr{2, 0, 0, 0, 0, 3}
)

func newParity(tb testing.TB) *parity {
	tb.Helper()
	p := &parity{
		host: nettest.NewHost(tb),
		peers: [2][2]netip.AddrPort{
			{netip.MustParseAddrPort("10.1.0.2:1000"), netip.MustParseAddrPort("10.1.0.3:2000")},
			{netip.MustParseAddrPort("[fd01::2]:1000"), netip.MustParseAddrPort("[fd01::3]:2000")},
		},
		local: [2]netip.AddrPort{netip.MustParseAddrPort("10.1.0.1:4433"), netip.MustParseAddrPort("[fd01::1]:4433")},
		keys:  [2]cid.Key{{1}, {2}},
	}
	other := nettest.NewHost(tb)
	nettest.Cable(p.host, "in0", []string{"10.1.0.1/24", "fd01::1/64"}, other, "out0", nil)
	p.host.Sysctl("net/ipv4/conf/in0/forwarding", "1")
	p.host.Sysctl("net/ipv6/conf/in0/forwarding", "1")
	program := xdptest.Load(tb, &xdp.Config{Sessions: 4})
	p.program = program
	p.host.Do(func() (err error) {
		if p.iface, err = net.InterfaceByName("in0"); err != nil {
			return err
		}
		for _, legs := range p.peers {
			for _, peer := range legs {
				n := &netlink.Neigh{LinkIndex: p.iface.Index, IP: peer.Addr().AsSlice(), HardwareAddr: parityNeighbour, State: netlink.NUD_PERMANENT}
				if err := netlink.NeighAdd(n); err != nil {
					return err
				}
			}
		}
		_, err = program.Attach("in0", xdp.Generic)
		return err
	})
	for family := range p.local {
		p.serve(tb, family)
	}
	return p
}

// serve makes the relay of one family, with a session in it.
func (p *parity) serve(tb testing.TB, family int) {
	tb.Helper()
	server, err := New(&Config{Secret: testSecret, XDP: p.program}, nettest.New(1).Listen(p.local[family].String()))
	if err != nil {
		tb.Fatal(err)
	}
	if err := server.openPorts(); err != nil {
		tb.Fatal(err)
	}
	for range family { // so that the sessions of both have different slots
		if _, err := server.sessions.open(control.NewSessionID(), accountTag{}, uncounted); err != nil {
			tb.Fatal(err)
		}
	}
	ses, err := server.sessions.open(control.SessionID{1}, accountTag{}, uncounted)
	if err != nil {
		tb.Fatal(err)
	}
	now := time.Now()
	for role := range control.Role(2) {
		l := &ses.legs[role]
		l.present, l.ttl, l.lastRefreshed, l.window = true, time.Hour, now, cid.NewWindow(0)
		l.setKeyLocked(p.keys[role])
		l.addr.Store(&legAddr{remote: p.peers[family][role], local: p.local[family].Addr()})
	}
	server.offload.putSession(ses.num, ses.offloadLegs())
	p.forget(tb, 1-family)
	for role := range control.Role(2) {
		ses.legs[role].renewLocked(now)
	}
	p.shards[family] = newShard(server, server.sockets.all[0])
	p.shards[family].now = now
}

// know makes the IDs lead to the session of one IP version. The keys are the same for both.
func (p *parity) know(tb testing.TB, family int) {
	tb.Helper()
	p.forget(tb, 1-family)
	p.each(tb, family, xdptest.Relay(tb, p.program).PutRoute)
}

// forget makes the IDs lead nowhere, if they led to the session of an IP version.
func (p *parity) forget(tb testing.TB, family int) {
	tb.Helper()
	p.each(tb, family, xdptest.Relay(tb, p.program).DeleteRoute)
}

// each calls a function for each ID, with its route to the session of an IP version.
func (p *parity) each(tb testing.TB, family int, do func(cid.ID, datapath.Route) error) {
	tb.Helper()
	for role, key := range p.keys {
		for c := range uint64(kernelIDs) {
			if err := do(key.ID(cid.Peer, c), datapath.Route{Session: uint32(family), Leg: uint8(role), Counter: c}); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

// check gives a packet to the kernel and the loop. The kernel must pass it unchanged, or
// send what the loop sends.
func (p *parity) check(tb testing.TB, family int, f *packet.Frame, cut int) (relayed bool) {
	tb.Helper()
	frame := f.Build(paritySender, p.iface.HardwareAddr)
	frame = frame[:max(len(frame)-cut, 14)]
	var verdict datapath.Verdict
	var out []byte
	if err := p.host.Run(func() (err error) {
		verdict, out, err = p.program.Datapath().Test(p.iface.Index, frame)
		return err
	}); err != nil {
		tb.Fatal(err)
	}
	if verdict == datapath.Pass {
		if !bytes.Equal(out, frame) {
			tb.Errorf("passed, but changed:\n%x\n%x", frame, out)
		}
		return false
	}
	if verdict != datapath.TX {
		tb.Fatalf("verdict %d for %x", verdict, frame)
	}
	want, ok := p.loop(family, f)
	if !ok || cut > f.Pad {
		tb.Fatalf("the kernel forwards what the loop does not:\n%x", frame)
	}
	sent := want.Build(p.iface.HardwareAddr, parityNeighbour)
	if want := sent[:len(sent)-cut]; !bytes.Equal(out, want) {
		tb.Errorf("the kernel sends\n%x, the loop\n%x", out, want)
	}
	return true
}

// loop returns the packet that the loop sends for one that the kernel would deliver to the
// relay.
func (p *parity) loop(family int, f *packet.Frame) (packet.Frame, bool) {
	v4 := f.Src.Addr().Is4()
	if f.Dst != p.local[family] || f.VLAN || f.UDPLen != 0 && f.UDPLen != 8+len(f.Payload) ||
		v4 && (f.Options || f.Flags&0x3fff != 0) || !v4 && f.Next != 0 && f.Next != 17 {
		return packet.Frame{}, false
	}
	sh := p.shards[family]
	m := udp.Message{Data: f.Payload, Remote: f.Src, Local: f.Dst.Addr(), ECN: f.TOS & 3, HopLimit: max(f.TTL, 1)}
	sh.out[0] = sh.out[0][:0]
	sh.sort(&m)
	if len(sh.out[0]) != 1 {
		return packet.Frame{}, false
	}
	sent := sh.out[0][0]
	out := *f
	out.Src, out.Dst = netip.AddrPortFrom(sent.Local, p.local[family].Port()), sent.Remote
	out.Payload = sent.Data
	out.TOS = f.TOS&^3 | sent.ECN // the loop's socket has the system's DSCP
	out.TTL = sent.HopLimit
	return out, true
}

// FuzzParity checks that the kernel does with any packet what Go does, or passes it to Go.
func FuzzParity(f *testing.F) {
	p := newParity(f)
	good := func(role byte) []byte {
		b := append([]byte{role, 0, 0, 0, 64, 2, 0, 0, 0x40}, p.keys[1-role].ID(cid.Peer, 1).Bytes()...)
		return append(b, "payload"...)
	}
	f.Add(false, good(0))
	f.Add(true, good(0))
	f.Add(false, good(1))
	f.Add(true, good(1))
	f.Fuzz(func(t *testing.T, v6 bool, in []byte) {
		if len(in) < 8 || len(in) > 1400 {
			return
		}
		family := 0
		if v6 {
			family = 1
		}
		p.know(t, family)
		p.check(t, family, p.frame(family, in), int(in[7]))
	})
}

// frame makes a packet of fuzzed bytes. The first eight of them say what is unusual about
// it.
func (p *parity) frame(family int, in []byte) *packet.Frame {
	f := &packet.Frame{
		Src: p.peers[family][in[0]&1], Dst: p.local[family],
		TTL: in[4], TOS: in[5], ID: uint16(in[6]), Flags: packet.DontFragment,
		Payload: in[8:],
	}
	switch in[1] % 16 {
	case 1:
		f.Src = netip.AddrPortFrom(f.Src.Addr(), binary.BigEndian.Uint16(in[2:]))
	case 2:
		f.Dst = netip.AddrPortFrom(f.Dst.Addr(), binary.BigEndian.Uint16(in[2:]))
	case 3:
		f.Src = netip.AddrPortFrom(p.local[family].Addr(), f.Src.Port())
	case 4:
		f.Dst = p.peers[family][in[0]>>1&1]
	case 5:
		f.Flags = binary.BigEndian.Uint16(in[2:])
	case 6:
		f.Options, f.Next = true, in[2]
	case 7:
		f.NoChecksum = true
	case 8:
		f.VLAN = true
	case 9:
		f.Pad = int(in[2])
	case 10:
		f.UDPLen = int(binary.BigEndian.Uint16(in[2:]))
	}
	return f
}

// TestParity checks all seeds of the fuzz test, and that the kernel forwards some of them.
func TestParity(t *testing.T) {
	p := newParity(t)
	for family := range p.local {
		p.know(t, family)
		relayed := 0
		for unusual := range byte(16) {
			for _, first := range []byte{0x40, 0x00, 0xc0} {
				for role := range byte(2) {
					for _, id := range []cid.ID{p.keys[1-role].ID(cid.Peer, 2), p.keys[role].ID(cid.Peer, 2), p.keys[1-role].ID(cid.Relay, 0), {}} {
						for ttl := range byte(3) {
							in := append([]byte{role, unusual, 0x20, unusual, ttl, 0xb9, 7, 0, first}, id.Bytes()...)
							if p.check(t, family, p.frame(family, append(in, "payload"...)), 0) {
								relayed++
							}
						}
					}
				}
			}
		}
		if relayed < 10 {
			t.Errorf("family %d: %d packets were relayed", family, relayed)
		}
	}
}
