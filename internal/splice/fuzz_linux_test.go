package splice

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
)

// FuzzParity runs the programs and the model on frames that are nearly segments of a pair, and
// compares the verdicts, the frames, the pair, the counters and the events.
func FuzzParity(f *testing.F) {
	for family := range familyNames {
		for d := range fromUpstream + 1 {
			for _, l := range layouts {
				s := newSegment(family, d)
				s.options, s.payload = l.options, []byte("data")
				f.Add(s.build(), uint8(active), uint8(d), uint16(0), uint64(0))
			}
			f.Add(sent(family, d).build(), uint8(quiet), uint8(d)|2, uint16(0), uint64(1))
			f.Add(finOf(family, d).build(), uint8(drain), uint8(d), uint16(100), uint64(2))
			f.Add(tooBig(family, d, 70000, 1400), uint8(active), uint8(d), uint16(0), uint64(3))
		}
	}
	r := newRig(f)
	f.Fuzz(func(t *testing.T, frame []byte, s, where uint8, gso uint16, seed uint64) {
		if len(frame) < 54 || len(frame) > 2000 {
			return // a test run needs a whole IP header, and has one page for a frame
		}
		d, h := direction(where&1), hook(where&2 != 0)
		frame = slices.Clone(frame)
		clear(frame[:12])
		family := aim(frame, d, h, where&4 != 0)
		pair := pairIn(family, state(s%8))
		scatter(&pair, seed)
		r.with(t).check(h, family, pair, frame, int(gso))
	})
}

// aim gives a frame the addresses of a flow, unless the frame is to stay as it is. It returns the
// family.
func aim(frame []byte, d direction, h hook, stay bool) int {
	family := 0
	if binary.BigEndian.Uint16(frame[12:]) == 0x86dd {
		family = 1
	}
	if stay || len(frame) < 34+20*family+4 {
		return family
	}
	model := newSegment(family, d)
	if h == atEgress {
		model = sent(family, d)
	}
	src, dst := frame[26:30], frame[30:34]
	if family == 1 {
		src, dst = frame[22:38], frame[38:54]
	}
	copy(src, model.src.Addr().AsSlice())
	copy(dst, model.dst.Addr().AsSlice())
	binary.BigEndian.PutUint16(frame[34+20*family:], model.src.Port())
	binary.BigEndian.PutUint16(frame[36+20*family:], model.dst.Port())
	return family
}

// scatter changes the numbers of a pair at random: some a little, some to anything.
func scatter(p *splicePair, seed uint64) {
	if seed == 0 {
		return
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	for i := range p.Halves {
		h := &p.Halves[i]
		for _, at := range []*uint32{&h.SeqAdd, &h.TsAdd, &h.MaxEnd, &h.MaxAck, &h.MaxEdge, &h.LastTs, &h.FinEnd} {
			switch rng.IntN(4) {
			case 0:
				*at += uint32(rng.IntN(9)) - 4
			case 1:
				*at = rng.Uint32()
			}
		}
		h.Mtu = uint16(rng.IntN(1600))
		h.InScale, h.OutScale, h.OwnScale = uint8(rng.IntN(15)), uint8(rng.IntN(15)), uint8(rng.IntN(15))
		h.Seen = rng.Uint32() & (seenReopened<<1 - 1)
		if rng.IntN(4) > 0 {
			h.Seen &^= seenReopened
		}
		if rng.IntN(2) == 0 {
			h.Flags |= halfNoECN
		}
	}
}
