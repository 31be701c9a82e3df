package splice

import (
	"slices"
	"testing"
)

// TestBelievedReset checks that only a RST with exactly the number that the other end expects, now or
// when it has all that was sent, ends a pair (RFC 5961 §3.2). Others are forwarded too, because the
// ends decide.
func TestBelievedReset(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		for _, s := range []state{pending, active, drain, closed} {
			pair := pairIn(family, s)
			h := &pair.Halves[d]
			h.Macs, h.Ifindex = [12]uint8{2}, 1<<30 // there is no such interface
			expected := pair.Halves[1-d].MaxAck - h.SeqAdd
			h.MaxEnd = expected + 100
			for _, off := range []uint32{0, 100, 1, 99, 101, ^uint32(0), 1000, 1 << 31} {
				seg := newSegment(family, d)
				seg.flags, seg.seq = rst, expected+off
				verdict, _, m := r.check(atIngress, family, pair, seg.build(), 0)
				believed := m.pair.Halves[d].Seen&seenRST != 0 && len(m.events) == 1 && m.events[0].What == reset
				if believed != (off == 0 || off == 100) || m.counters[Unbelieved] == 0 != believed {
					r.Errorf("%v, offset %d: seen %x, events %v, counted %v", s, int32(off), m.pair.Halves[d].Seen, m.events, m.counters)
				}
				if s != pending && verdict != redirect {
					r.Errorf("%v, offset %d: verdict %d", s, int32(off), verdict)
				}
			}
		}
	})
}

// finOf returns the FIN of a direction, after 3 bytes of data.
func finOf(family int, d direction) *segment {
	s := newSegment(family, d)
	s.flags, s.payload = fin|ack, []byte("end")
	return s
}

// ackOf returns the acknowledgement of finOf by the other end, before or after that end's own FIN.
func ackOf(family int, d direction, pair *splicePair, last bool) *segment {
	s := newSegment(family, 1-d)
	s.ack = finOf(family, d).seq + 4 + pair.Halves[d].SeqAdd
	if last {
		s.seq += 4
	}
	return s
}

// TestFinished checks that the pair has ended when each end has acknowledged the other's FIN,
// whoever finishes first and whichever acknowledgement is last.
func TestFinished(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, first direction) {
		start := pairIn(family, active)
		both := []struct {
			name     string
			segments []*segment
		}{
			{"one after the other", []*segment{finOf(family, first), ackOf(family, first, &start, false), finOf(family, 1-first), ackOf(family, 1-first, &start, true)}},
			{"at once", []*segment{finOf(family, first), finOf(family, 1-first), ackOf(family, 1-first, &start, true), ackOf(family, first, &start, true)}},
		}
		// A FIN that acknowledges the other one.
		last := ackOf(family, first, &start, false)
		last.flags, last.payload = fin|ack, []byte("end")
		both = append(both, struct {
			name     string
			segments []*segment
		}{"with the other's acknowledgement", []*segment{finOf(family, first), last, ackOf(family, 1-first, &start, true)}})
		for _, test := range both {
			pair := start
			for i, s := range test.segments {
				_, _, m := r.check(atIngress, family, pair, s.build(), 0)
				pair = m.pair
				ended := len(m.events) == 1 && m.events[0].What == finished
				if ended != (i == len(test.segments)-1) {
					r.Errorf("%s: segment %d: events %v", test.name, i, m.events)
				}
			}
			for range 2 { // late packets of the connection
				_, _, m := r.check(atIngress, family, pair, test.segments[0].build(), 0)
				if pair = m.pair; len(m.events) != 0 {
					r.Errorf("%s: told again: %v", test.name, m.events)
				}
			}
		}
	})
}

// TestBelief checks that numbers outside the windows are forwarded, but not noted, and that nothing
// is noted of a segment of which one number is wrong. In QUIET our sockets decide what can be true.
func TestBelief(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		start := pairIn(family, active)
		own, other := start.Halves[d], start.Halves[1-d]
		edge, expected := other.MaxEdge-own.SeqAdd, other.MaxAck-own.SeqAdd
		oldest, oldestAck := expected-65535<<own.OwnScale-1, own.MaxAck-1-65535<<own.OutScale
		for _, test := range []struct {
			name      string
			change    func(s *segment)
			data, ack bool // are believed
			doubted   bool // and this is counted
		}{
			{"data up to the edge", func(s *segment) { s.seq = edge - 4 }, true, true, false},
			{"a probe of a closed window", func(s *segment) { s.seq = edge - 3 }, true, true, false},
			{"data beyond the edge", func(s *segment) { s.seq = edge - 2 }, false, false, true},
			{"data far beyond", func(s *segment) { s.seq = edge + 1<<30 }, false, false, true},
			{"a FIN beyond the edge", func(s *segment) { s.seq, s.flags = edge-3, fin|ack }, false, false, true},
			{"a FIN at the edge", func(s *segment) { s.seq, s.flags = edge-4, fin|ack }, true, true, false},
			{"data that was acknowledged", func(s *segment) { s.seq = expected - 5 }, false, false, false},
			{"a FIN before what was acknowledged", func(s *segment) { s.seq, s.flags = expected-6, fin|ack }, false, false, false},
			{"an acknowledgement up to the edge", func(s *segment) { s.ack = own.MaxEdge }, true, true, false},
			{"one of a probe", func(s *segment) { s.ack = own.MaxEdge + 1 }, true, true, false},
			{"one beyond the edge", func(s *segment) { s.ack = own.MaxEdge + 2 }, false, false, true},
			{"one far beyond", func(s *segment) { s.ack = own.MaxEdge + 1<<30 }, false, false, true},
			{"a FIN with one far beyond", func(s *segment) { s.ack, s.flags = own.MaxEdge+1<<30, fin|ack }, false, false, true},
			{"an old one", func(s *segment) { s.ack = oldestAck }, true, false, false},
			{"one that is too old", func(s *segment) { s.ack = oldestAck - 1 }, false, false, true},
			{"a FIN with one that is too old", func(s *segment) { s.ack, s.flags = oldestAck-1, fin|ack }, false, false, true},
			{"data without one", func(s *segment) { s.flags = psh }, false, false, true},
			{"a FIN without one", func(s *segment) { s.flags = fin }, false, false, true},
			{"data as old as can be", func(s *segment) { s.seq = oldest }, false, false, false},
			{"data that is too old", func(s *segment) { s.seq = oldest - 1 }, false, false, true},
			{"data far behind", func(s *segment) { s.seq = expected - 1<<30 }, false, false, true},
			{"old data without one", func(s *segment) { s.seq, s.flags = expected-5, psh }, false, false, true},
			{"one with data beyond", func(s *segment) { s.seq, s.ack = edge, s.ack+10 }, false, false, true},
		} {
			for _, in := range []state{quiet, active} {
				pair := start
				pair.State = uint32(in)
				pair.Halves[d].MaxAck, pair.Halves[d].MaxEnd = own.MaxAck-1, expected+1
				s := newSegment(family, d)
				s.payload = []byte("data")
				test.change(s)
				_, _, m := r.check(atIngress, family, pair, s.build(), 0)
				h := m.pair.Halves[d]
				data := s.seq+4+uint32(s.flags&fin) == h.MaxEnd && s.flags&fin != 0 == (h.Seen&seenFIN != 0)
				acked := s.ack == h.MaxAck && h.Window == s.window
				if in == quiet && !(data || beyond(expected, s.seq)) {
					r.Errorf("%s in quiet: %+v", test.name, h)
				}
				if in == active && (data != test.data || acked != test.ack || m.counters[Unbelieved] == 1 != test.doubted) {
					r.Errorf("%s: noted data %v, acknowledgement %v, counted %v", test.name, data, acked, m.counters)
				}
				if again := in == active && !test.data && !test.doubted; again != (h.Retransmitted == 4) && in == active {
					r.Errorf("%s: %d bytes were sent again", test.name, h.Retransmitted)
				}
				if acked && beyond(s.ack-other.SeqAdd, m.pair.Halves[1-d].MaxEnd) {
					r.Errorf("%s: more was acknowledged than sent: %+v", test.name, m.pair.Halves[1-d])
				}
			}
		}
	})
}

// TestRetransmitted checks which part of the data counts as sent again.
func TestRetransmitted(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		for off, want := range map[int32]uint64{0: 0, 500: 0, -1: 1, -3: 3, -4: 4, -100: 4} {
			s := newSegment(family, d)
			s.seq, s.payload = s.seq+uint32(off), []byte("data")
			_, _, m := r.check(atIngress, family, pairIn(family, active), s.build(), 0)
			if h := m.pair.Halves[d]; h.Retransmitted != want || h.Bytes != 4 || h.Packets != 1 {
				r.Errorf("offset %d: %+v, want %d", off, h, want)
			}
		}
	})
}

// TestRenumbered checks that an acknowledgement that the other end would ignore gets the number that the
// other end expects, and that it counts. That of a probe, of a segment that has data or is an end, or of
// what this end could not have sent, stays; what ends before it counts for nothing.
func TestRenumbered(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		start := pairIn(family, active)
		own := &start.Halves[d]
		window, old := int32(65535)<<own.OwnScale, int32(65535)<<own.OutScale
		for _, test := range []struct {
			off     int32 // from what the other end expects
			payload string
			flags   uint16
			more    int32 // is acknowledged than before
			want    int32
		}{
			{0, "", ack, 100, 0}, {5, "", ack, 100, 5}, {-1, "", ack, 100, -1}, {-2, "", ack, 100, 0}, {-4000, "", ack, 100, 0},
			{-window, "", ack | psh, 100, 0}, {-4, "data", ack, 100, -4}, {-1000, "", ack | fin, 100, -1000}, {-1000, "", ack | rst, 100, -1000},
			{-window - 2, "", ack, 100, -window - 2}, {-1 << 30, "", ack, 100, -1 << 30}, {-1000, "", psh, 100, -1000}, {-1000, "", 0, 100, -1000},
			{-1000, "", ack, 5201, 0}, {-1000, "", ack, 5202, -1000}, {-1000, "", ack, 1 << 30, -1000},
			{-1000, "", ack, -old, 0}, {-1000, "", ack, -old - 1, -1000}, {-1000, "", ack, -1 << 30, -1000},
		} {
			pair := start
			s := newSegment(family, d)
			expected := s.seq
			s.seq, s.payload, s.flags = s.seq+uint32(test.off), []byte(test.payload), test.flags
			s.ack += uint32(test.more) - 200
			pair.Halves[d].MaxAck = own.MaxAck - 200
			pair.Halves[d].MaxEdge = own.MaxAck + 5000
			_, out, m := r.check(atIngress, family, pair, s.build(), 0)
			v, _, rest, _ := viewIP(out, 0)
			v.viewTCP(rest)
			if got := int32(v.seq() - pair.Halves[d].SeqAdd - expected); got != test.want {
				r.Errorf("%+v: got %d", test, got)
			}
			noted := m.pair.Halves[d].MaxAck == s.ack
			if noted != (test.more > 0 && int(test.want)+len(test.payload) >= 0) {
				r.Errorf("%+v: noted: %v", test, noted)
			}
		}
	})
}

// wanting are changes that make a segment ask Go to take the pair back.
var wanting = map[string]func(s *segment){
	"TTL":     func(s *segment) { s.ttl = 1 },
	"too big": func(s *segment) { s.payload = make([]byte, 1600) },
	"options": func(s *segment) { s.options = []byte{1, 1, 1, 1} },
}

// numbersOf returns sequence numbers of a segment with n bytes, and whether the end of a direction could
// have sent it.
func numbersOf(p *splicePair, d direction, n uint32) map[uint32]bool {
	own, other := p.Halves[d], p.Halves[1-d]
	edge, expected := other.MaxEdge-own.SeqAdd, other.MaxAck-own.SeqAdd
	oldest := expected - 65535<<own.OwnScale - 1
	return map[uint32]bool{
		expected: true, expected - 1000: true, oldest: true, oldest - 1: false, expected - 1<<30: false,
		expected + 1<<31: false, edge + 1 - n: true, edge + 2 - n: false, edge + 1<<30: false,
	}
}

// TestForgedWants checks that a packet asks Go to take a pair back only if its end could have sent it: a
// stranger who knows only the addresses of a connection cannot ask.
func TestForgedWants(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		start := pairIn(family, active)
		for name, change := range wanting {
			for _, flags := range []uint16{ack, ack | rst, syn} {
				if flags == syn && name == "options" {
					continue // a SYN has other options, and loses them
				}
				s := newSegment(family, d)
				change(s)
				s.flags = flags
				for seq, want := range numbersOf(&start, d, uint32(len(s.payload))) {
					s.seq = seq
					_, _, m := r.check(atIngress, family, start, s.build(), 0)
					told := slices.ContainsFunc(m.events, func(e event) bool { return e.What == wanted })
					asked := m.pair.Halves[d].Seen&(seenTTL|seenTooBig|seenOptions) != 0
					if asked != want || told != want {
						r.Errorf("%s, flags %x, number %d: asked %v, told %v, want %v", name, flags, seq, asked, told, want)
					}
				}
			}
		}
	})
}
