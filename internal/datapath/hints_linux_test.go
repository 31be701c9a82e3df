package datapath

import (
	"bytes"
	"testing"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/test/packet"
)

// hintsOf returns the hints of a program.
func hintsOf(t *testing.T, p *Program) []uint32 {
	t.Helper()
	hints := make([]uint32, p.objects.Hints.MaxEntries())
	for i := range hints {
		if err := p.objects.Hints.Lookup(uint32(i), &hints[i]); err != nil {
			t.Fatal(err)
		}
	}
	return hints
}

// fillHints sets all hints of a program.
func fillHints(t *testing.T, p *Program, leg uint32) {
	t.Helper()
	for i := range p.objects.Hints.MaxEntries() {
		if err := p.objects.Hints.Put(i, leg); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHints checks that a packet that is forwarded sets one hint, and that its own hint, a wrong one and
// one to no leg make no difference.
func TestHints(t *testing.T) {
	const leg = 2*3 + 1 // leg 1 of session 3
	for family, name := range families {
		t.Run(name, func(t *testing.T) {
			w := newWire(t)
			w.session(family, carol, relayC)
			f := w.good(family)
			want := relayed(f, carol, relayC)
			for _, wrong := range []uint32{0, 5, leg, 2 * 16, ^uint32(0)} {
				fillHints(t, w.program, wrong)
				for range 2 {
					out := w.run(f.Build(edgeMAC, w.in.HardwareAddr), Redirect, Relayed)
					if expect := want.Build(w.out.HardwareAddr, peerMAC); !bytes.Equal(out, expect) {
						t.Errorf("with hints to %d: sent\n%x\nwant\n%x", wrong, out, expect)
					}
				}
				changed := 0
				for _, hint := range hintsOf(t, w.program) {
					if hint == leg {
						changed++
					} else if hint != wrong {
						t.Errorf("a hint to %d", hint)
					}
				}
				if wrong != leg && changed != 1 {
					t.Errorf("%d hints to the leg after packets of one source, want 1", changed)
				}
			}
		})
	}
}

// TestHintsOfStrangers checks that packets that are not forwarded set no hints.
func TestHintsOfStrangers(t *testing.T) {
	w := newWire(t)
	w.session(0, bob, relayAB)
	fillHints(t, w.program, 9)
	for why, change := range map[Reason]func(*packet.Frame){
		PassSource:  func(f *packet.Frame) { f.Src = stray.at(0, 1000) },
		PassTTL:     func(f *packet.Frame) { f.TTL = 1 },
		PassUnknown: func(f *packet.Frame) { copy(f.Payload[1:], cid.NewKey().ID(cid.Peer, 0).Bytes()) },
		PassLong:    func(f *packet.Frame) { f.Payload[0] |= 0x80 },
	} {
		f := w.good(0)
		change(&f)
		w.run(f.Build(edgeMAC, w.in.HardwareAddr), Pass, why)
	}
	for _, hint := range hintsOf(t, w.program) {
		if hint != 9 {
			t.Errorf("a packet that passed has set a hint to %d", hint)
		}
	}
}
