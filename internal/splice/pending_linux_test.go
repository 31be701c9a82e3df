package splice

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// listening returns a listener on the loopback interface.
func listening(t *testing.T, family int) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addrs("127.0.0.1:0", "[::1]:0")[family].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// connected returns both ends of a connection over the loopback interface, after some bytes each way.
func connected(t *testing.T, family int) (dialed, accepted *net.TCPConn) {
	t.Helper()
	l := listening(t, family)
	d, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close(); a.Close() })
	for _, ends := range [][2]net.Conn{{d, a}, {a, d}} {
		if _, err := ends[0].Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := ends[1].Read(make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
	return d.(*net.TCPConn), a.(*net.TCPConn)
}

// numbers returns the sequence numbers that a socket sends and receives next.
func numbers(t *testing.T, c *net.TCPConn) (send, receive uint32) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	get := func(fd, queue int) uint32 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue); err != nil {
			t.Fatal(err)
		}
		n, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(n)
	}
	err = raw.Control(func(fd uintptr) {
		if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
			nettest.Missing(t, "TCP_REPAIR failed: "+err.Error())
		}
		send, receive = get(int(fd), 2), get(int(fd), 1)
		if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, -1); err != nil { // without a probe
			t.Fatal(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return send, receive
}

func local(c net.Conn) netip.AddrPort { return c.LocalAddr().(*net.TCPAddr).AddrPort() }

// TestPending checks that a packet in PENDING is forwarded, and that our socket gets its
// acknowledgement, without payload, of no more than the socket has sent. What the end could not have sent
// is forwarded, but our socket gets nothing of it.
func TestPending(t *testing.T) {
	t.Parallel()
	for family, name := range familyNames {
		t.Run(name, func(t *testing.T) {
			nettest.Namespace(t)
			q0, q1 := newVeth(t)
			loopbackUp(t)
			r := &rig{TB: t, program: mustLoad(t, &Config{MaxPairs: 2})}
			r.before = r.stats()
			dialed, accepted := connected(t, family)
			flow := tuple{remote: local(dialed), local: local(accepted)}
			if err := r.program.flows.put(flow, 0, fromClient); err != nil {
				t.Fatal(err)
			}
			defer r.program.flows.delete(flow, 0, fromClient)
			snd, rcv := numbers(t, accepted)

			pair := pairIn(family, pending)
			h, other := &pair.Halves[fromClient], &pair.Halves[fromUpstream]
			other.setAddrs(flow.local, flow.remote)
			h.MaxEnd, h.MaxAck, h.MaxEdge = rcv, snd, snd+1000
			other.MaxAck, other.MaxEdge = rcv+h.SeqAdd, rcv+h.SeqAdd+5000
			h.Ifindex, h.Macs = uint32(q0.Index), [12]uint8(slices.Concat(q1.HardwareAddr, q0.HardwareAddr))
			for _, test := range []struct {
				name    string
				flags   uint16
				off     int32 // from what our socket expects
				past    int32 // of the acknowledgement, after what was sent
				options []byte
				dropped bool
			}{
				{"all that was sent", ack | psh | ece, 1000, 0, stamps(5, 6), false},
				{"more than was sent", ack | fin | cwr, 1000, 500, stamps(5, 6), false},
				{"less, without options", ack, 1000, -3, nil, false},
				{"SACK", ack, 1000, 9, slices.Concat(stamps(7, 8), sack(snd+100, snd+200)), false},
				{"SACK alone", ack, 1000, -1, sack(snd+100, snd+200), false},
				{"data that was sent before", ack, -1000, 0, nil, false},
				{"RST", rst | ack, 1000, 0, nil, false},
				{"no acknowledgement", rst, 1000, 0, nil, true},
				{"an acknowledgement beyond the edge", ack, 1000, 1002, nil, true},
				{"one far beyond", ack, 1000, 1 << 30, nil, true},
				{"one that is too old", ack, 1000, -1 << 30, nil, true},
				{"data beyond the edge", ack, 5000, 0, nil, true},
				{"data far behind", ack, -1 << 30, 0, nil, true},
			} {
				s := &segment{src: flow.remote, dst: flow.local, seq: rcv + uint32(test.off), ack: snd + uint32(test.past), flags: test.flags, window: 77, options: test.options, payload: []byte("data")}
				out := r.pend(test.name, pair, s, q1, test.dropped)
				if test.dropped {
					continue
				}
				want := &segment{src: s.src, dst: s.dst, seq: rcv, ack: snd + uint32(min(test.past, 0)), flags: test.flags & (ack | ece), window: 77, ttl: 63}
				if bytes.HasPrefix(test.options, []byte{1, 1, 8}) {
					want.options = test.options[:12]
				}
				if !sameFrame(out, want.build()) {
					t.Errorf("%s: copy\n%x, want\n%x", test.name, out, want.build())
				}
				r.wantSums(out)
			}
		})
	}
}

// pend runs the program on a segment, and checks what leaves to the peer of an interface, and whether
// our socket gets a packet, which pend returns.
func (r *rig) pend(name string, pair splicePair, s *segment, peer *net.Interface, dropped bool) (out []byte) {
	r.Helper()
	tap := newTap(r.TB.(*testing.T), peer)
	r.program.pairs.pairs[0] = pair
	verdict, out := r.run(r.program.objects.SpliceIngress, s.build(), 0)
	m := &model{pair: pair, counters: make(map[Reason]uint64)}
	_, clone := m.ingress(s.build(), 0)
	if got := tap.receive(); !sameFrame(got, clone) {
		r.Errorf("%s: forwarded\n%x, want\n%x", name, got, clone)
	}
	want, reason := next, Copied
	if dropped {
		want, reason = shot, NotCopied
	}
	if n := r.counted(); verdict != want || n[reason] != 1 {
		r.Errorf("%s: verdict %d, want %d; counted %v", name, verdict, want, n)
	}
	return out
}

// TestPendingWithoutSocket checks that a packet in PENDING is dropped after it was forwarded, if our
// socket is gone. A listener that has its address must not get it.
func TestPendingWithoutSocket(t *testing.T) {
	t.Parallel()
	for family, name := range familyNames {
		t.Run(name, func(t *testing.T) {
			nettest.Namespace(t)
			loopbackUp(t)
			r := newRig(t)
			l := listening(t, family)
			flow := tuple{remote: clients[family], local: l.Addr().(*net.TCPAddr).AddrPort()}
			if err := r.program.flows.put(flow, uint32(family), fromClient); err != nil {
				t.Fatal(err)
			}
			defer r.program.flows.delete(flow, uint32(family), fromClient)
			pair := pairIn(family, pending)
			pair.Halves[fromClient].Macs, pair.Halves[fromClient].Ifindex = [12]uint8{2}, 1<<30 // there is no such interface
			pair.Halves[fromUpstream].setAddrs(flow.local, flow.remote)
			s := newSegment(family, fromClient)
			s.dst = flow.local
			if verdict, _, m := r.check(atIngress, family, pair, s.build(), 0); verdict != shot || m.counters[NotCopied] != 1 {
				t.Errorf("verdict %d, counted %v", verdict, m.counters)
			}
		})
	}
}

func loopbackUp(t *testing.T) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestPendingWithoutNeighbor checks that our socket gets the whole packet if Go does not know the
// link-layer address of the other end.
func TestPendingWithoutNeighbor(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		verdict, _, m := r.check(atIngress, family, pairIn(family, pending), newSegment(family, d).build(), 0)
		if verdict != next || m.counters[NoNeighbor] != 1 {
			r.Errorf("verdict %d, counted %v", verdict, m.counters)
		}
	})
}
