package metrics

import (
	"iter"

	"github.com/prometheus/client_golang/prometheus"
)

// buckets is a histogram of times in seconds. Each count has the times up to a bound, with those
// of the bounds before it.
type buckets struct {
	counts map[float64]uint64
	all    uint64
	sum    float64
}

// fromCounts makes a histogram of counts that each have the times between two bounds. The last
// count is of those beyond all bounds.
func fromCounts(bounds []float64, counts []uint64, sum float64) buckets {
	b := buckets{counts: make(map[float64]uint64, len(bounds)), sum: sum}
	for i, n := range counts {
		if b.all += n; i < len(bounds) {
			b.counts[bounds[i]] = b.all
		}
	}
	return b
}

// histogram returns a histogram of durations, in seconds.
func histogram[S any](name, help string, of func(*S) buckets) metric[S] {
	return metric[S]{name: name, help: help, collect: func(s *S, e emitter) { e.histogram(of(s)) }}
}

// histograms returns a histogram of durations, in seconds, for each value of a label.
func histograms[S any](name, help, label string, all func(*S) iter.Seq2[string, buckets]) metric[S] {
	return metric[S]{name: name, help: help, labels: []string{label}, collect: func(s *S, e emitter) {
		for value, b := range all(s) {
			e.histogram(b, value)
		}
	}}
}

// histogram sends a histogram with the values of the metric's labels.
func (e emitter) histogram(b buckets, labels ...string) {
	e.out <- prometheus.MustNewConstHistogram(e.desc, b.all, b.sum, b.counts, labels...)
}
