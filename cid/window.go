package cid

// Widths of a [Window], in counters.
//
// A peer has at most six IDs in use, and makes another one only when it has
// retired one of these, so what its sender turns to next is at most six ahead
// of what it uses, and what arrives late at most six behind. The window is
// several times as wide, because whoever acts on it may be late: a sender with
// a million packets a second spends an ID every 10 ms (quic-go keeps one for
// 10 000 packets on average), so that Ahead lasts for 160 ms.
const (
	// Behind is how far below the latest hit IDs are still known.
	Behind = 8
	// Ahead is how far above it they are known already.
	Ahead = 16
	// MaxWidth bounds a window, however far its owner says it is: IDs of
	// paths that do not cross the relay are spent too.
	MaxWidth = 64
)

// Range is the counters from Lo to before Hi. It is empty if Lo >= Hi.
type Range struct{ Lo, Hi uint64 }

// Len returns how many counters there are.
func (r Range) Len() int {
	if r.Lo >= r.Hi {
		return 0
	}
	return int(r.Hi - r.Lo)
}

// HasLow says whether a counter with these low bits is in a range that is short.
func (r Range) HasLow(low uint32) bool { return int(low-uint32(r.Lo)) < r.Len() }

// Window is the counters whose IDs a relay knows, of one leg. It slides up as
// the IDs are used, and never down. It is a value without a lock.
type Window struct{ known Range }

// NewWindow returns the window of an owner whose next ID has the counter next:
// 0, or more if it was known before.
func NewWindow(next uint64) Window {
	return Window{Range{sub(next, Behind), next + Ahead}}
}

// Bounds returns the counters in the window, from lo to before hi.
func (w *Window) Bounds() (lo, hi uint64) { return w.known.Lo, w.known.Hi }

// Due returns the counter from which on a hit should be followed by
// [Window.Hit]: one in the upper half of what is ahead. Others need nothing,
// so that IDs are learnt many at a time.
func (w *Window) Due() uint64 { return sub(w.known.Hi, Ahead/2) }

// Hit slides the window after a packet with the ID of a counter: up, so that
// the counter is Ahead below its end, and what is more than Behind below it is
// dropped. It returns what to forget and what to learn. Counters outside the
// window change nothing.
func (w *Window) Hit(counter uint64) (drop, add Range) {
	if counter < w.known.Lo || counter >= w.known.Hi {
		return Range{}, Range{}
	}
	return w.slide(sub(counter, Behind), counter+Ahead)
}

// Extend slides the end of the window up for an owner that says which counter
// comes next. It keeps what is below, as far as MaxWidth allows.
func (w *Window) Extend(next uint64) (drop, add Range) {
	hi := next + Ahead
	return w.slide(sub(hi, MaxWidth), hi)
}

// slide moves both ends up to where they should be at least, and says which
// counters have left and which are new.
func (w *Window) slide(lo, hi uint64) (drop, add Range) {
	old := w.known
	w.known = Range{max(old.Lo, lo), max(old.Hi, hi)}
	drop = Range{old.Lo, min(w.known.Lo, old.Hi)}
	add = Range{max(old.Hi, w.known.Lo), w.known.Hi}
	return drop, add
}

// sub is a-b, but not below 0.
func sub(a, b uint64) uint64 {
	if a < b {
		return 0
	}
	return a - b
}
