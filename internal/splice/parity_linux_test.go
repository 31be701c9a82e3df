package splice

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// allStates are the states of a pair.
var allStates = []state{off, quiet, pending, active, drain, hold, closed}

// each runs a test for both familyNames and directions.
func (r *rig) each(f func(r *rig, family int, d direction)) {
	for family, name := range familyNames {
		for d := range fromUpstream + 1 {
			r.TB.(*testing.T).Run(fmt.Sprint(name, " ", d), func(t *testing.T) { f(r.with(t), family, d) })
		}
	}
}

// TestForward checks what becomes of each field of a segment.
func TestForward(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		s := newSegment(family, d)
		s.payload, s.options = []byte("payload"), slices.Concat(stamps(1000, 2000), sack(s.ack+10, s.ack+20))
		verdict, out, m := r.check(atIngress, family, pairIn(family, active), s.build(), 0)
		if verdict != redirect || m.counters[Forwarded] != 1 {
			r.Errorf("verdict %d, counted %v", verdict, m.counters)
		}
		r.wantSums(out)
		want := *newSegment(family, d)
		want.payload, want.ttl = s.payload, 63
		if d == fromClient {
			want.src, want.dst = dialers[family], upstreams[family]
			want.seq, want.ack, want.window = 19000, 65000, 50<<7>>9
			want.options = slices.Concat(stamps(1300, 2400), sack(65010, 65020))
		} else {
			want.src, want.dst = listeners[family], clients[family]
			want.seq, want.ack, want.window = 70000, 20000, 30<<8>>8
			want.options = slices.Concat(stamps(600, 1700), sack(20010, 20020))
		}
		if built := want.build(); !sameFrame(out, built) {
			r.Errorf("frame\n%x, want\n%x", out, built)
		}
	})
}

// layouts are the options of segments, and whether the programs translate them.
var layouts = []struct {
	name    string
	options []byte
	known   bool
}{
	{"none", nil, true},
	{"timestamps", stamps(100, 200), true},
	{"timestamps without an echo", stamps(100, 0), true},
	{"timestamps, one block", slices.Concat(stamps(1, 2), sack(70010, 70020)), true},
	{"timestamps, two blocks", slices.Concat(stamps(1, 2), sack(70010, 70020, 70030, 70040)), true},
	{"timestamps, three blocks", slices.Concat(stamps(1, 2), sack(1, 2, 3, 4, 5, 6)), true},
	{"one block", sack(70010, 70020), true},
	{"two blocks, the first a DSACK", sack(69000, 69010, 70030, 70040), true},
	{"three blocks", sack(1, 2, 3, 4, 5, 6), true},
	{"four blocks", sack(1, 2, 3, 4, 5, 6, 7, 0xffffffff), true},
	{"timestamps that wrap", stamps(0xffffffff, 0xffffff00), true},
	{"edges that wrap", sack(0xfffffff0, 0xffffffff), true},
	{"NOPs", []byte{1, 1, 1, 1}, false},
	{"end of options", []byte{0, 0, 0, 0}, false},
	{"timestamps first", []byte{8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1}, false},
	{"SACK first", []byte{5, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1}, false},
	{"timestamps, NOPs", slices.Concat(stamps(1, 2), []byte{1, 1, 1, 1}), false},
	{"SACK before timestamps", slices.Concat(sack(1, 2), stamps(1, 2)), false},
	{"SACK without a block", []byte{1, 1, 5, 2}, false},
	{"half a block", []byte{1, 1, 5, 6, 0, 0, 0, 1}, false},
	{"a SACK that is longer than the header", []byte{1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 2}, false},
	{"a SACK that is shorter than the header", []byte{1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4}, false},
	{"timestamps of another length", []byte{1, 1, 8, 6, 0, 0, 0, 1, 1, 1, 1, 1}, false},
	{"timestamps that end early", []byte{1, 1, 8, 10, 0, 0, 0, 1}, false},
	{"of a SYN", []byte{2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7}, false},
	{"MD5", append([]byte{1, 1, 19, 18}, make([]byte, 16)...), false},
	{"forty bytes", slices.Repeat([]byte{253, 4, 1, 2}, 10), false},
}

// TestOptions checks options of each layout: known ones are translated, and all others become NOPs,
// so that no timestamp or SACK block passes untranslated.
func TestOptions(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		for _, l := range layouts {
			for _, s := range []state{quiet, active, drain, closed} {
				seg := newSegment(family, d)
				seg.options, seg.payload = l.options, []byte("odd")
				verdict, out, m := r.check(atIngress, family, pairIn(family, s), seg.build(), 0)
				h := m.pair.Halves[d]
				if odd := h.Seen&seenOptions != 0; odd == l.known {
					r.Errorf("%s in %v: the layout is unknown: %v", l.name, s, odd)
				}
				if s == quiet {
					continue
				}
				r.wantSums(out)
				if verdict != redirect || m.counters[BlankedOptions] == 1 == l.known || (len(m.events) == 1) == l.known {
					r.Errorf("%s in %v: verdict %d, counted %v, events %v", l.name, s, verdict, m.counters, m.events)
				}
				v, _, rest, _ := viewIP(out, 0)
				if v.viewTCP(rest); !l.known && strings.Trim(string(v.options()), "\x01") != "" {
					r.Errorf("%s in %v: options %x", l.name, s, v.options())
				}
			}
		}
	})
}

// TestWindowScales checks windows with all scales of both connections. They are rounded down.
func TestWindowScales(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for in := range uint8(15) {
		for out := range uint8(15) {
			for i, window := range []uint16{0, 1, 511, 0xffff} {
				pair := pairIn(i&1, active)
				h := &pair.Halves[fromClient]
				h.InScale, h.OutScale = in, out
				s := newSegment(i&1, fromClient)
				s.window = window
				_, frame, _ := r.check(atIngress, i&1, pair, s.build(), 0)
				v, _, rest, _ := viewIP(frame, 0)
				v.viewTCP(rest)
				if want := min(uint32(window)<<in>>out, 65535); v.window() != want {
					t.Errorf("%d, scales %d and %d: %d, want %d", window, in, out, v.window(), want)
				}
			}
		}
	}
}

// TestDrain checks that windows in DRAIN let an end send no more than it has sent.
func TestDrain(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		for left, want := range map[int32]uint32{-5: 0, 0: 0, 1: 0, 255: 0, 512: 1, 1023: 1, 4096: 8, 1 << 20: 0xffff} {
			pair := pairIn(family, drain)
			h, other := &pair.Halves[d], &pair.Halves[1-d]
			h.InScale, h.OutScale = 9, 9
			s := newSegment(family, d)
			s.window = 0xffff
			other.MaxEnd = s.ack - other.SeqAdd + uint32(left)
			_, frame, _ := r.check(atIngress, family, pair, s.build(), 0)
			v, _, rest, _ := viewIP(frame, 0)
			v.viewTCP(rest)
			if want = min(want, uint32(max(left, 0))>>9); v.window() != want {
				r.Errorf("%d bytes left: window %d, want %d", left, v.window(), want)
			}
		}
	})
}

// shift moves all numbers of the leg of a direction, so that they wrap.
func shift(p *splicePair, d direction, by, stamps uint32) {
	h, other := &p.Halves[d], &p.Halves[1-d]
	for _, at := range []*uint32{&h.MaxEnd, &h.FinEnd, &h.MaxAck, &h.MaxEdge} {
		*at += by
	}
	h.LastTs += stamps
	h.SeqAdd, other.SeqAdd = h.SeqAdd-by, other.SeqAdd+by
	h.TsAdd, other.TsAdd = h.TsAdd-stamps, other.TsAdd+stamps
}

// TestWrap checks sequence numbers and timestamps that wrap around between a segment and the next,
// on the leg that it comes from and on the other leg.
func TestWrap(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		for _, leg := range []direction{fromClient, fromUpstream} {
			for _, base := range []uint32{20000, 65000, 70000, 19000} {
				for _, off := range []uint32{0, 1, 3, 1 << 31} {
					pair := pairIn(family, active)
					by := -base - off
					shift(&pair, leg, by, by)
					s := newSegment(family, d)
					if leg == d {
						s.seq, s.ack = s.seq+by, s.ack+by
					}
					s.payload, s.options = []byte("payload"), stamps(pair.Halves[d].LastTs+1, 0xfffffffe)
					_, out, m := r.check(atIngress, family, pair, s.build(), 0)
					r.wantSums(out)
					if h := m.pair.Halves[d]; h.MaxEnd != s.seq+7 || h.MaxAck != s.ack || m.counters[Unbelieved] != 0 {
						r.Errorf("base %d: %+v, counted %v", base, h, m.counters)
					}
				}
			}
		}
	})
}

// TestFlags checks combinations of flags in all states, at both hooks.
func TestFlags(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		for _, s := range allStates {
			for flags := range uint16(96) { // all of the low five flags, alone and with two sets of the others
				flags = flags&31 | []uint16{0, ece | cwr | ae, urg | ece}[flags>>5]
				in, out := newSegment(family, d), sent(family, d)
				in.flags, out.flags = flags, flags
				in.options = stamps(6000, 2)
				pair := pairIn(family, s)
				pair.Halves[d].Flags |= halfNoECN
				r.check(atIngress, family, pair, in.build(), 0)
				r.check(atEgress, family, pair, out.build(), 0)
			}
		}
	})
}

// TestSYN checks what becomes of a SYN in each state.
func TestSYN(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		for s, want := range map[state]struct {
			verdict int
			reason  Reason
		}{
			quiet: {next, PassedSYN}, pending: {next, PassedSYN}, active: {redirect, ForwardedSYN},
			drain: {redirect, ForwardedSYN}, hold: {shot, DroppedHold}, closed: {next, Reopened},
		} {
			seg := newSegment(family, d)
			seg.flags, seg.seq, seg.options = syn, 12345, []byte{2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7}
			verdict, out, m := r.check(atIngress, family, pairIn(family, s), seg.build(), 0)
			if verdict != want.verdict || m.counters[want.reason] != 1 {
				r.Errorf("%v: verdict %d, counted %v, want %+v", s, verdict, m.counters, want)
			}
			if verdict == redirect {
				r.wantSums(out)
			}
			seg.flags |= ack // would be a new connection to the other end
			if verdict, _, _ := r.check(atIngress, family, pairIn(family, s), seg.build(), 0); verdict == redirect {
				r.Errorf("%v: a SYN with an acknowledgement is forwarded", s)
			}
		}
	})
}

// TestReopened checks that a SYN of a new connection, from an end or from our host, makes the
// programs pass the packets of both legs of a closed pair.
func TestReopened(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		in, out := newSegment(family, d), sent(family, d)
		in.flags, out.flags = syn, syn
		for h, frame := range map[hook][]byte{atIngress: in.build(), atEgress: out.build()} {
			_, _, m := r.check(h, family, pairIn(family, closed), frame, 0)
			if len(m.events) != 1 || m.events[0].What != renewed {
				r.Errorf("events %v", m.events)
			}
			for _, d := range []direction{fromClient, fromUpstream} {
				v1, _, _ := r.check(atIngress, family, m.pair, newSegment(family, d).build(), 0)
				v2, _, _ := r.check(atEgress, family, m.pair, sent(family, d).build(), 0)
				if v1 != next || v2 != next {
					r.Errorf("direction %d afterwards: verdicts %d and %d", d, v1, v2)
				}
			}
		}
	})
}
