package metrics

import (
	"iter"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quicway/quicway/monitor"
)

// histogram returns a histogram of durations, in seconds.
func histogram[S any](name, help string, of func(*S) *monitor.Histogram) metric[S] {
	return metric[S]{name: name, help: help, collect: func(s *S, e emitter) { e.histogram(of(s)) }}
}

// histograms returns a histogram of durations, in seconds, for each value of a label.
func histograms[S any](name, help, label string, all func(*S) iter.Seq2[string, *monitor.Histogram]) metric[S] {
	return metric[S]{name: name, help: help, labels: []string{label}, collect: func(s *S, e emitter) {
		for value, h := range all(s) {
			e.histogram(h, value)
		}
	}}
}

// histogram sends a histogram with the values of the metric's labels.
func (e emitter) histogram(h *monitor.Histogram, labels ...string) {
	buckets := make(map[float64]uint64, len(h.Buckets))
	for _, b := range h.Buckets {
		buckets[b.UpTo.Duration().Seconds()] = b.Count
	}
	e.out <- prometheus.MustNewConstHistogram(e.desc, h.Count, h.Sum.Duration().Seconds(), buckets, labels...)
}
