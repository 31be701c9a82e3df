package cid

// Widths of a [Window], in counters.
//
// A peer has at most six IDs in use, and makes a new one only when it has retired one. So
// the next ID that its sender uses is at most six ahead of the current one, and a late
// packet is at most six behind. The window is wider, because it may move late: a sender of a
// million packets per second uses up an ID every 10 ms (quic-go uses one for 10 000 packets
// on average), so that Ahead IDs last for 160 ms.
const (
	// Behind is how many counters below the latest hit are in the window.
	Behind = 8
	// Ahead is how many counters from the latest hit on are in the window.
	Ahead = 16
	// MaxWidth bounds the window when its owner moves it ahead without hits,
	// because its IDs are used on paths that do not cross the relay.
	MaxWidth = 64
)

// Range is the counters from Lo up to, but not including, Hi. It is empty if Lo >= Hi.
type Range struct{ Lo, Hi uint64 }

// Len returns the number of counters in the range.
func (r Range) Len() int {
	if r.Lo >= r.Hi {
		return 0
	}
	return int(r.Hi - r.Lo)
}

// Window is the range of counters whose IDs a relay knows for one leg. It moves up as the
// IDs are used, and never down. It is not safe for concurrent use.
type Window struct{ known Range }

// NewWindow returns the window of a leg whose next new ID has the counter next.
func NewWindow(next uint64) Window {
	return Window{Range{sub(next, Behind), next + Ahead}}
}

// Bounds returns the range of the window: the counters from lo up to, but not including, hi.
func (w *Window) Bounds() (lo, hi uint64) { return w.known.Lo, w.known.Hi }

// Due returns the counter from which on a packet should cause a call of [Window.Hit]. It is
// Ahead/2 below the end of the window, so that each call adds several IDs.
func (w *Window) Due() uint64 { return sub(w.known.Hi, Ahead/2) }

// Hit moves the window up after a packet with the ID of a counter, to the range from Behind
// below the counter to Ahead above it. It returns the counters that leave the window, and
// those that are new in it. A counter outside the window changes nothing.
func (w *Window) Hit(counter uint64) (drop, add Range) {
	if counter < w.known.Lo || counter >= w.known.Hi {
		return Range{}, Range{}
	}
	return w.slide(sub(counter, Behind), counter+Ahead)
}

// Extend moves the end of the window up for an owner whose next new ID has the counter next.
// The window keeps its lower counters, as far as MaxWidth allows. Extend returns the counters
// that leave the window, and those that are new in it.
func (w *Window) Extend(next uint64) (drop, add Range) {
	hi := next + Ahead
	return w.slide(sub(hi, MaxWidth), hi)
}

// slide moves the ends of the window up to lo and hi, if they are lower. It returns the
// counters that leave the window, and those that are new in it.
func (w *Window) slide(lo, hi uint64) (drop, add Range) {
	old := w.known
	w.known = Range{max(old.Lo, lo), max(old.Hi, hi)}
	drop = Range{old.Lo, min(w.known.Lo, old.Hi)}
	add = Range{max(old.Hi, w.known.Lo), w.known.Hi}
	return drop, add
}

// sub returns a-b, or 0 if that is negative.
func sub(a, b uint64) uint64 {
	if a < b {
		return 0
	}
	return a - b
}
