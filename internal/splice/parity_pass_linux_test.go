package splice

import (
	"encoding/binary"
	"slices"
	"testing"
)

// TestLeftAlone checks packets that the programs leave to the network stack, because they are not
// plain TCP of a flow.
func TestLeftAlone(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		other := addrs("10.9.9.9:40000", "[2001:db8:9::9]:40000")[family]
		for name, change := range map[string]func(s *segment){
			"another source":                 func(s *segment) { s.src = other },
			"another destination":            func(s *segment) { s.dst = other },
			"the opposite direction":         func(s *segment) { s.src, s.dst = s.dst, s.src },
			"UDP":                            func(s *segment) { s.next = 17 },
			"an extension header or IGMP":    func(s *segment) { s.next = 2 },
			"an IP length beyond the frame":  func(s *segment) { s.length = 1 },
			"an IP length within the header": func(s *segment) { s.length = -len(s.payload) - 1 },
			"a data offset of 4 words":       func(s *segment) { s.offset = -1 },
			"a data offset of 0":             func(s *segment) { s.offset = -5 },
			"a data offset beyond the frame": func(s *segment) { s.offset = 10 },
			"the first fragment":             func(s *segment) { s.frag = 0x2000 },
			"another fragment":               func(s *segment) { s.frag = 100 },
			"IP options":                     func(s *segment) { s.ipWords = 1 },
		} {
			if v6 := family == 1; v6 && slices.Contains([]string{"the first fragment", "another fragment", "IP options"}, name) {
				continue
			}
			for _, s := range []state{quiet, pending, active, hold} {
				in, out := newSegment(family, d), sent(family, d)
				in.payload, out.payload = []byte("data"), []byte("data")
				change(in)
				change(out)
				v1, _, m1 := r.check(atIngress, family, pairIn(family, s), in.build(), 0)
				v2, _, m2 := r.check(atEgress, family, pairIn(family, s), out.build(), 0)
				if v1 != next || v2 != next || len(m1.counters)+len(m2.counters) != 0 {
					r.Errorf("%s in %v: verdicts %d and %d, counted %v and %v", name, s, v1, v2, m1.counters, m2.counters)
				}
			}
		}
	})
}

// TestTruncated checks that a frame that is cut anywhere is left alone.
func TestTruncated(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		s := newSegment(family, d)
		s.options, s.payload = slices.Concat(stamps(1, 2), sack(3, 4)), []byte("data")
		frame := s.build()
		for n := 34 + 20*family; n < len(frame); n++ { // a test run needs a whole IP header
			if verdict, _, m := r.check(atIngress, family, pairIn(family, active), frame[:n], 0); verdict != next || len(m.counters) > 0 {
				r.Errorf("%d of %d bytes: verdict %d, counted %v", n, len(frame), verdict, m.counters)
			}
		}
	})
}

// TestPadded checks that padding is not payload.
func TestPadded(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		s := newSegment(family, d)
		s.pad = 6
		verdict, out, m := r.check(atIngress, family, pairIn(family, active), s.build(), 0)
		if verdict != redirect || m.pair.Halves[d].Bytes != 0 {
			r.Errorf("verdict %d, %d bytes", verdict, m.pair.Halves[d].Bytes)
		}
		r.wantSums(out)
	})
}

// TestEtherType checks that frames with a VLAN tag are left alone, and other protocols.
func TestEtherType(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		frame := newSegment(family, d).build()
		tagged := slices.Concat(frame[:12], []byte{0x81, 0, 0, 5}, frame[12:])
		arp := slices.Clone(frame)
		binary.BigEndian.PutUint16(arp[12:], 0x0806)
		for _, frame := range [][]byte{tagged, arp} {
			if verdict, _, _ := r.check(atIngress, family, pairIn(family, active), frame, 0); verdict != next {
				r.Errorf("verdict %d", verdict)
			}
		}
	})
}

// TestTTL checks the TTL and the hop limit.
func TestTTL(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		for _, ttl := range []byte{1, 2, 255} {
			s := newSegment(family, d)
			s.ttl = ttl
			pair := pairIn(family, active)
			verdict, out, m := r.check(atIngress, family, pair, s.build(), 0)
			if ttl > 1 {
				if verdict != redirect {
					r.Errorf("TTL %d: verdict %d", ttl, verdict)
				}
				r.wantSums(out)
				continue
			}
			if verdict != next || m.counters[PassedTTL] != 1 || len(m.events) != 1 || m.events[0].What != wanted {
				r.Errorf("TTL 1: verdict %d, counted %v, events %v", verdict, m.counters, m.events)
			}
			if _, _, m := r.check(atIngress, family, m.pair, s.build(), 0); len(m.events) != 0 {
				r.Errorf("told again: %v", m.events)
			}
		}
	})
}

// TestECN checks the ECN fields of IP and TCP, with ends that both have ECN and with one that has not.
func TestECN(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		for _, no := range []bool{false, true} {
			for tos := range byte(8) {
				for _, flags := range []uint16{ack, ack | ece, ack | cwr, ack | ae, ack | ece | cwr | ae | psh} {
					pair := pairIn(family, active)
					if no {
						pair.Halves[d].Flags |= halfNoECN
					}
					s := newSegment(family, d)
					s.tos, s.flags = tos, flags
					verdict, out, m := r.check(atIngress, family, pair, s.build(), 0)
					if no && tos&3 == 3 {
						if verdict != shot || m.counters[DroppedCE] != 1 {
							r.Errorf("TOS %d: verdict %d, counted %v", tos, verdict, m.counters)
						}
						continue
					}
					r.wantSums(out)
					v, _, rest, _ := viewIP(out, 0)
					v.viewTCP(rest)
					gotTOS := out[15]
					if family == 1 {
						gotTOS = out[14]<<4 | out[15]>>4
					}
					wantTOS, wantFlags := tos, flags
					if no {
						wantTOS, wantFlags = tos&^3, flags&^(ece|cwr|ae)
					}
					if verdict != redirect || gotTOS != wantTOS || v.flags() != wantFlags {
						r.Errorf("no ECN %v, TOS %d, flags %x: verdict %d, TOS %d, flags %x", no, tos, flags, verdict, gotTOS, v.flags())
					}
				}
			}
		}
	})
}

// TestTooBig checks packets of about the size of the MTU on the other side, and GSO packets with
// segments of such sizes.
func TestTooBig(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		room := 500 - 20*(family+1) - 20 - 12
		for _, test := range []struct {
			payload, gso int
			fits         bool
		}{
			{room, 0, true}, {room + 1, 0, false}, {2000, 0, false},
			{2000, room, true}, {2000, room + 1, false}, {100, room + 1, true}, {room + 1, 65535, false},
		} {
			s := newSegment(family, d)
			s.options, s.payload = stamps(1, 2), make([]byte, test.payload)
			pair := pairIn(family, active)
			pair.Halves[d].Mtu = 500
			verdict, _, m := r.check(atIngress, family, pair, s.build(), test.gso)
			if fits := verdict == redirect; fits != test.fits || len(m.events) == 1 == fits || m.counters[DroppedTooBig] == 1 == fits {
				r.Errorf("%+v: verdict %d, events %v, counted %v", test, verdict, m.events, m.counters)
			}
		}
	})
}

// TestHugeGSO checks a GSO packet of more than 64 KiB, which has no length in its IP header.
func TestHugeGSO(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		s := newSegment(family, d)
		s.payload = make([]byte, 3000)
		s.length = -len(s.payload) - 20 - 20*(1-family)
		pair := pairIn(family, active)
		verdict, _, m := r.check(atIngress, family, pair, s.build(), 1000)
		if verdict != redirect || m.pair.Halves[d].Bytes != 3000 {
			r.Errorf("verdict %d, %d bytes", verdict, m.pair.Halves[d].Bytes)
		}
		if verdict, _, _ := r.check(atIngress, family, pair, s.build(), 0); verdict != next {
			r.Errorf("without GSO: verdict %d", verdict)
		}
	})
}

// tooBig returns an ICMP message about a segment that was forwarded in the opposite direction.
func tooBig(family int, d direction, seq, mtu uint32) []byte {
	inner := &segment{src: sent(family, d).src, dst: sent(family, d).dst, seq: seq, flags: ack, payload: make([]byte, 1000)}
	packet := inner.build()[14:][:20*(family+1)+8]
	if family == 0 {
		packet = slices.Concat([]byte{3, 4, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}, packet)
	} else {
		packet = slices.Concat([]byte{2, 0, 0, 0, byte(mtu >> 24), byte(mtu >> 16), byte(mtu >> 8), byte(mtu)}, packet)
	}
	outer := &segment{src: addrs("192.0.2.1:0", "[2001:db8::1]:0")[family], dst: inner.src, next: []byte{1, 58}[family], length: len(packet) - 20}
	frame := outer.build()
	return append(frame[:14+20*(family+1)], packet...)
}

// TestTooBigICMP checks ICMP messages about forwarded packets. They are believed for data that is on
// the way (RFC 5927 §4.1).
func TestTooBigICMP(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		for _, s := range allStates {
			for _, off := range []int32{-1, 0, 99, 100} {
				pair := pairIn(family, s)
				h, other := &pair.Halves[d], &pair.Halves[1-d]
				other.MaxEnd = h.MaxAck - other.SeqAdd + 100
				frame := tooBig(family, d, h.MaxAck+uint32(off), 1400)
				verdict, _, m := r.check(atIngress, family, pair, frame, 0)
				want := off >= 0 && off < 100 && s >= pending && s <= hold
				told := len(m.events) == 1 && m.events[0] == event{uint32(family), 7, wanted, uint8(1 - d), 1400}
				if verdict != next || told != want || m.pair.Halves[1-d].Seen&seenICMP != 0 != want {
					r.Errorf("%v, offset %d: verdict %d, events %v", s, off, verdict, m.events)
				}
			}
		}
		frame := tooBig(family, d, pairIn(family, active).Halves[d].MaxAck, 1400)
		pair := pairIn(family, active)
		pair.Halves[1-d].MaxEnd = pair.Halves[d].MaxAck - pair.Halves[1-d].SeqAdd + 100
		for n := 34 + 20*family; n < len(frame); n++ { // truncated
			if verdict, _, m := r.check(atIngress, family, pair, frame[:n], 0); verdict != next || len(m.events) > 0 {
				r.Errorf("%d bytes: verdict %d, events %v", n, verdict, m.events)
			}
		}
		for at := 34; at < len(frame); at++ { // other messages
			changed := slices.Clone(frame)
			changed[at] ^= 1
			r.check(atIngress, family, pair, changed, 0)
		}
	})
}

// TestClamp checks the windows of our own packets. In QUIET they let the end send nothing new, and in
// PENDING no more than the other end has room for. They are never larger than they were.
func TestClamp(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		for _, left := range []int32{-1, 0, 1, 255, 256, 511, 512, 1024, 1 << 20} {
			for i, flags := range []uint16{ack, ack | psh, ack | fin, ack | rst, ack | syn, 0, ack, ack | psh} {
				pair := pairIn(family, quiet)
				h, other := &pair.Halves[d], &pair.Halves[1-d]
				limit := h.MaxEnd
				if i > 5 {
					pair.setState(pending)
					limit = other.MaxAck + uint32(other.Window)<<other.InScale - h.SeqAdd
				}
				s := sent(family, d)
				s.flags, s.payload = flags, []byte("x")
				s.ack = limit - uint32(left)
				_, out, m := r.check(atEgress, family, pair, s.build(), 0)
				r.wantSums(out)
				v, _, rest, _ := viewIP(out, 0)
				v.viewTCP(rest)
				want := uint32(s.window)
				if room := uint32(max(left, 0)) >> h.OwnScale; flags&ack != 0 && flags&(syn|rst) == 0 {
					want = min(want, room)
				}
				if v.window() != want || m.counters[Clamped] == 1 != (want < uint32(s.window)) {
					r.Errorf("%d bytes left, flags %x: window %d, want %d; counted %v", left, flags, v.window(), want, m.counters)
				}
			}
		}
	})
}

// TestOwnWindow checks that the programs note how far our sockets have let the ends send before the
// takeover, because the ends may do so afterwards.
func TestOwnWindow(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		for _, in := range []state{quiet, pending} {
			own := sent(family, d)
			own.window = 5000
			pair := pairIn(family, in)
			pair.Halves[d].MaxEnd = own.ack + 1<<14
			pair.Halves[1-d].Window = 1<<16 - 1
			_, _, m := r.check(atEgress, family, pair, own.build(), 0)
			edge := own.ack + 5000<<pair.Halves[d].OwnScale // the other end has more room
			if in == quiet {
				edge = pair.Halves[d].MaxEnd
			}
			pair = m.pair
			pair.State = uint32(active)
			for off, want := range map[uint32]bool{0: true, 1: true, 2: false} {
				s := newSegment(family, d)
				s.seq = edge + off
				if _, _, m := r.check(atIngress, family, pair, s.build(), 0); m.counters[Unbelieved] == 0 != want {
					r.Errorf("%v, %d beyond the edge: counted %v", in, off, m.counters)
				}
			}
			raised := pairIn(family, in)
			raised.letSend(d, edge)
			if got, want := raised.Halves[1-d].MaxEdge, pair.Halves[1-d].MaxEdge; got != want {
				r.Errorf("%v: letSend: %d, the program %d", in, got, want)
			}
		}
	})
}

// TestCatchUp checks that what our socket knows has the same effect on the entry as the packet that it
// knows it from, which the programs may not have seen. Old packets change nothing.
func TestCatchUp(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		for _, more := range []uint32{0, 1, 4000} {
			s := newSegment(family, d)
			s.payload, s.ack = make([]byte, 10), s.ack+more
			if more == 0 {
				s.payload = nil
			}
			pair := pairIn(family, quiet)
			_, _, m := r.check(atIngress, family, pair, s.build(), 0)
			want := &m.pair.Halves[d]
			v := peekView{
				SndUna: s.ack, RcvNxt: s.seq + uint32(len(s.payload)), RcvEdge: s.seq,
				SndWnd: uint32(s.window) << want.InScale, SndScale: want.InScale,
			}
			for range 2 {
				pair.catchUp(d, &v)
				got := &pair.Halves[d]
				same := got.MaxAck == want.MaxAck && got.MaxEnd == want.MaxEnd && got.MaxEdge == want.MaxEdge
				if !same || more > 0 && got.Window != want.Window {
					r.Errorf("%d more: %+v, the program %+v", more, got, want)
				}
				v.SndUna, v.RcvNxt, v.SndWnd = v.SndUna-100, v.RcvNxt-5, 0
			}
		}
	})
}

// TestOwnStamp checks that packets of our sockets in PENDING have timestamps that are no older than what was
// forwarded to the same end.
func TestOwnStamp(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		for _, last := range []uint32{1000, 1<<31 + 7, ^uint32(0)} {
			for off := range int32(5) {
				pair := pairIn(family, pending)
				other := &pair.Halves[1-d]
				other.LastTs = last - other.TsAdd
				s := sent(family, d)
				s.options = stamps(last+uint32(off-2), 6)
				_, out, _ := r.check(atEgress, family, pair, s.build(), 0)
				r.wantSums(out)
				v, _, rest, _ := viewIP(out, 0)
				v.viewTCP(rest)
				if got, _, ok := timestamps(v.options()); !ok || got != last+uint32(max(off-2, 0)) {
					r.Errorf("%d after %d was forwarded: %d", last+uint32(off-2), last, got)
				}
			}
		}
	})
}

// TestForwardedByHost checks that the program at egress leaves packets alone that another interface
// has received.
func TestForwardedByHost(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		r.program.pairs.pairs[family] = pairIn(family, active)
		for ingress, want := range map[int]int{0: shot, 1: next} {
			if verdict, _ := r.runFrom(r.program.objects.SpliceEgress, sent(family, d).build(), 0, ingress); verdict != want {
				r.Errorf("from interface %d: verdict %d, want %d", ingress, verdict, want)
			}
		}
	})
}
