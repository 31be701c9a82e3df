package monitor

import "time"

// Histogram counts durations by their length.
type Histogram struct {
	// Buckets has the number of durations up to some lengths, the shortest first. A
	// bucket includes those before it.
	Buckets []Bucket `json:"buckets"`
	// Count is the number of all durations, and Sum their sum.
	Count uint64       `json:"count"`
	Sum   Milliseconds `json:"sum_ms"`
}

// Bucket is the number of durations up to a length.
type Bucket struct {
	UpTo  Milliseconds `json:"up_to_ms"`
	Count uint64       `json:"count"`
}

// bucketBounds are the lengths of all histograms: round trips within a data center, around
// the world, and with lost packets.
var bucketBounds = [...]time.Duration{
	1 * time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// durations count durations in nanoseconds.
type durations struct {
	counts [len(bucketBounds) + 1]uint64 // of each bucket alone; the last one: longer ones
	sum    int64
}

// add adds a duration. A negative one, between packets whose times are wrong, counts as 0.
func (d *durations) add(ns int64) {
	ns = max(ns, 0)
	i := 0
	for i < len(bucketBounds) && ns > int64(bucketBounds[i]) {
		i++
	}
	d.counts[i]++
	d.sum += ns
}

// histogram returns a copy for callers.
func (d *durations) histogram() Histogram {
	out := Histogram{Buckets: make([]Bucket, len(bucketBounds)), Sum: Milliseconds(d.sum)}
	for i, n := range d.counts {
		if out.Count += n; i < len(bucketBounds) {
			out.Buckets[i] = Bucket{Milliseconds(bucketBounds[i]), out.Count}
		}
	}
	return out
}

// handshakeTimes count the round trips of handshakes.
type handshakeTimes struct{ whole, serverSide, clientSide durations }

// add adds the round trip of a handshake whose halves have both been seen.
func (t *handshakeTimes) add(c *connection) {
	t.whole.add(c.confirmAt - c.initialAt)
	t.serverSide.add(c.answerAt - c.initialAt)
	t.clientSide.add(c.confirmAt - c.answerAt)
}
