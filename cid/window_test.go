package cid

import (
	"math/rand/v2"
	"testing"
)

// model applies the results of a window as a relay does.
type model struct {
	t      *testing.T
	window Window
	known  map[uint64]bool
}

func newModel(t *testing.T, next uint64) *model {
	m := &model{t, NewWindow(next), map[uint64]bool{}}
	lo, hi := m.window.Bounds()
	m.apply(Range{}, Range{lo, hi})
	return m
}

func (m *model) apply(drop, add Range) {
	m.t.Helper()
	for c := drop.Lo; c < drop.Hi; c++ {
		if !m.known[c] {
			m.t.Fatalf("drops %d, which it never knew", c)
		}
		delete(m.known, c)
	}
	for c := add.Lo; c < add.Hi; c++ {
		if m.known[c] {
			m.t.Fatalf("learns %d, which it knows", c)
		}
		m.known[c] = true
	}
	lo, hi := m.window.Bounds()
	if len(m.known) != int(hi-lo) {
		m.t.Fatalf("knows %d counters, but its window is [%d, %d)", len(m.known), lo, hi)
	}
	for c := lo; c < hi; c++ {
		if !m.known[c] {
			m.t.Fatalf("does not know %d in its window [%d, %d)", c, lo, hi)
		}
	}
	if len(m.known) > MaxWidth {
		m.t.Fatalf("window [%d, %d) is wider than %d", lo, hi, MaxWidth)
	}
}

func TestWindowBegins(t *testing.T) {
	for next, want := range map[uint64]Range{
		0:    {0, Ahead},
		3:    {0, 3 + Ahead},
		1000: {1000 - Behind, 1000 + Ahead},
	} {
		w := NewWindow(next)
		if lo, hi := w.Bounds(); lo != want.Lo || hi != want.Hi {
			t.Errorf("at %d: [%d, %d), want [%d, %d)", next, lo, hi, want.Lo, want.Hi)
		}
	}
}

// TestWindowFollowsTraffic uses IDs as QUIC does: six at a time, roughly in order. It calls
// Hit only for counters from Due on.
func TestWindowFollowsTraffic(t *testing.T) {
	const live = 6
	rng := rand.New(rand.NewPCG(3, 4))
	m := newModel(t, 0)
	hits := 0
	for newest := uint64(live); newest < 2000; newest++ {
		for range 10 {
			used := newest - uint64(rng.IntN(live))
			if !m.known[used] {
				t.Fatalf("ID %d is not known while [%d, %d] are in use", used, newest-live+1, newest)
			}
			if used >= m.window.Due() {
				hits++
				m.apply(m.window.Hit(used))
			}
		}
	}
	if hits > 2000/4 {
		t.Errorf("Hit was called %d times for 2000 IDs", hits)
	}
}

// TestWindowWalk makes random calls in random order.
func TestWindowWalk(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		m := newModel(t, rng.Uint64N(100))
		var hi uint64
		for range 200 {
			at := rng.Uint64N(2000)
			if rng.IntN(3) > 0 {
				lo, end := m.window.Bounds()
				at = lo + rng.Uint64N(end-lo)
			}
			if rng.IntN(4) == 0 {
				m.apply(m.window.Extend(at))
			} else {
				m.apply(m.window.Hit(at))
			}
			_, now := m.window.Bounds()
			if now < hi {
				t.Fatalf("window ends at %d after %d", now, hi)
			}
			hi = now
		}
	}
}

// TestWindowIgnoresOtherCounters checks that a counter outside the window does not move it.
func TestWindowIgnoresOtherCounters(t *testing.T) {
	w := NewWindow(100)
	before := w
	for _, counter := range []uint64{0, 100 - Behind - 1, 100 + Ahead, 1 << 40, ^uint64(0)} {
		if drop, add := w.Hit(counter); drop.Len() != 0 || add.Len() != 0 || w != before {
			t.Errorf("a hit of %d drops %v, adds %v", counter, drop, add)
		}
	}
}

// TestWindowExtendsFar checks that an owner can move its window far up after it has used
// many IDs elsewhere.
func TestWindowExtendsFar(t *testing.T) {
	m := newModel(t, 0)
	m.apply(m.window.Extend(10))
	if lo, hi := m.window.Bounds(); lo != 0 || hi != 10+Ahead {
		t.Errorf("[%d, %d), want [0, %d)", lo, hi, 10+Ahead)
	}
	m.apply(m.window.Extend(100_000))
	if lo, hi := m.window.Bounds(); lo != 100_000+Ahead-MaxWidth || hi != 100_000+Ahead {
		t.Errorf("[%d, %d)", lo, hi)
	}
	before := m.window
	m.apply(m.window.Extend(50))
	if m.window != before {
		t.Error("the window went down")
	}
}
