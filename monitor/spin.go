package monitor

import "time"

// spin measures round trips by the spin bit of one direction (RFC 9000 §17.4,
// RFC 9312 §3.8.2). Times and round trips are in nanoseconds.
//
// An end that changes the connection ID sets its value to 0. This reset is no edge. It is told from
// an edge that comes with the new ID: each edge follows an edge of the other direction. An end that does
// not spin may draw its value anew for each ID (RFC 9000 §17.4): then all edges come with new IDs.
type spin struct {
	edge     int64 // when the value last changed; 0: it has not
	packets  uint32
	edges    uint32
	sum      int64 // eight times the moving average
	samples  uint32
	rejected uint32
	half     int64 // the latest half of a round trip: since the edge came the other way
	value    bool
	started  bool
	renewed  bool   // the next packet has another connection ID than the latest one
	withID   uint32 // edges that came with another connection ID
}

// Filters of RFC 9312 §3.8.2. An edge much sooner than after the average round
// trip is a packet out of order. A direction whose value changes every few packets
// greases the bit.
const (
	spinMinRatio   = 4  // a sample below this part of the average is rejected
	spinGreaseMin  = 16 // packets, before which no greasing is detected
	spinGreaseRate = 3  // one edge in that many packets, or more, is greasing
	spinMaxSample  = int64(30 * time.Second)

	// An end does not spin if it has kept its value for so many packets, while the other
	// end has changed it so many times.
	spinLonePackets, spinLoneEdges = 4, 3
)

// add adds a packet. otherEdge is when the value of the other direction last changed. edge
// reports whether there is an edge. rtt is the round trip that was measured, or 0.
func (s *spin) add(now int64, value bool, otherEdge int64) (edge bool, rtt int64) {
	s.packets++
	renewed := s.renewed
	s.renewed = false
	if !s.started {
		s.started, s.value = true, value
		return false, 0
	}
	if value == s.value {
		return false, 0
	}
	s.value = value
	if renewed && otherEdge <= s.edge && (s.edge != 0 || !value) {
		return false, 0 // a reset, or a late packet from before one
	}
	s.edges++
	if renewed {
		s.withID++
	}
	before := s.edge
	s.edge = now
	if before == 0 { // the first edge
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

// keep adds a sample to the moving average with a weight of an eighth (RFC 9002
// §5.3).
func (s *spin) keep(sample int64) {
	if s.samples == 0 {
		s.sum = 8 * sample
	} else {
		s.sum += sample - s.sum/8
	}
	s.samples++
}

func (s *spin) average() int64 { return s.sum / 8 }

// greased reports whether the value changes too often to follow round trips, or follows the connection IDs.
func (s *spin) greased() bool {
	return s.packets >= spinGreaseMin && s.edges*spinGreaseRate >= s.packets || s.rejected > s.samples ||
		s.edges > 0 && !s.changes()
}

// changes reports whether the value has changed while the connection ID stayed.
func (s *spin) changes() bool { return s.edges > s.withID }

// rtt returns the average round trip, or 0 if the direction does not spin.
func (s *spin) rtt() time.Duration {
	if s.samples == 0 || s.greased() {
		return 0
	}
	return time.Duration(s.average())
}
