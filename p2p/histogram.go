package p2p

import (
	"sync/atomic"
	"time"
)

// timeBounds are the bounds of all [Times]: round trips within a building, around the world,
// and over a path that loses packets.
var timeBounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// Times counts times by their length.
type Times struct {
	// Bounds are lengths, the shortest first.
	Bounds []time.Duration
	// Counts has the number of times up to each bound that are longer than the bound before,
	// and at its end the number of those longer than all bounds.
	Counts []uint64
	// Sum is the sum of all times.
	Sum time.Duration
}

// histogram counts times. The zero value is ready for use, by several goroutines.
type histogram struct {
	counts [len(timeBounds) + 1]atomic.Uint64
	sum    atomic.Int64 // nanoseconds
}

func (h *histogram) add(d time.Duration) {
	i := 0
	for i < len(timeBounds) && d > timeBounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// times returns a copy for callers.
func (h *histogram) times() Times {
	t := Times{Bounds: append([]time.Duration(nil), timeBounds[:]...), Sum: time.Duration(h.sum.Load())}
	for i := range h.counts {
		t.Counts = append(t.Counts, h.counts[i].Load())
	}
	return t
}
