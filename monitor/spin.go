package monitor

import "time"

// spin follows the spin bit of one direction (RFC 9000 §17.4, RFC 9312
// §3.8.2).
type spin struct {
	edge     int64 // when the value last changed
	packets  uint32
	edges    uint32
	sum      int64 // of the latest samples, by decay
	samples  uint32
	rejected uint32
	half     int64 // the latest: since the edge came the other way
	value    bool
	started  bool
}

// Filters of RFC 9312 §3.8.2: an edge much sooner than round trips have been is
// a packet out of order. A direction that changes its value with every few
// packets does not spin but greases.
const (
	spinMinRatio   = 4 // a sample below this part of the average is not one
	spinGreaseMin  = 16
	spinGreaseRate = 3 // one edge in so many packets, or more
	spinMaxSample  = int64(30 * time.Second)
)

// add takes a packet, and says whether the value changed and a round trip has
// been measured, in nanoseconds.
func (s *spin) add(now int64, value bool) (edge bool, rtt int64) {
	s.packets++
	if !s.started {
		s.started, s.value = true, value
		return false, 0
	}
	if value == s.value {
		return false, 0
	}
	s.value = value
	s.edges++
	before := s.edge
	s.edge = now
	if before == 0 { // the first edge has none to be measured from
		return true, 0
	}
	sample := now - before
	if sample <= 0 || sample > spinMaxSample || s.samples > 2 && sample*spinMinRatio < s.average() {
		s.rejected++
		return true, 0
	}
	s.keep(sample)
	return true, sample
}

// keep averages with a weight of an eighth, as RFC 9002 §5.3 does.
func (s *spin) keep(sample int64) {
	if s.samples == 0 {
		s.sum = 8 * sample
	} else {
		s.sum += sample - s.sum/8
	}
	s.samples++
}

func (s *spin) average() int64 { return s.sum / 8 }

// greased says that the bit changes too often to follow round trips.
func (s *spin) greased() bool {
	return s.packets >= spinGreaseMin && s.edges*spinGreaseRate >= s.packets || s.rejected > s.samples
}

// rtt returns the round trip, or 0 if the direction does not spin.
func (s *spin) rtt() time.Duration {
	if s.samples == 0 || s.greased() {
		return 0
	}
	return time.Duration(s.average())
}
