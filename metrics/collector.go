package metrics

import (
	"iter"

	"github.com/prometheus/client_golang/prometheus"
)

// namespace is the prefix of all names.
const namespace = "quicway"

// metric is a number in a package's Stats, or one number for each value of a label.
type metric[S any] struct {
	name, help string
	kind       prometheus.ValueType
	value      func(*S) float64                    // nil: the metric has a label
	label      string                              // the label's name
	values     func(*S) iter.Seq2[string, float64] // the label's values and their numbers
}

// collector collects metrics from a Stats that it reads once for each scrape.
type collector[S any] struct {
	read    func() (S, error)
	metrics []metric[S]
	descs   []*prometheus.Desc
}

// newCollector returns a collector. A scrape fails if read returns an error.
func newCollector[S any](subsystem string, metrics []metric[S], read func() (S, error)) prometheus.Collector {
	c := &collector[S]{read: read, metrics: metrics}
	for _, m := range metrics {
		var labels []string
		if m.label != "" {
			labels = []string{m.label}
		}
		c.descs = append(c.descs, prometheus.NewDesc(prometheus.BuildFQName(namespace, subsystem, m.name), m.help, labels, nil))
	}
	return c
}

// Describe implements [prometheus.Collector].
func (c *collector[S]) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *collector[S]) Collect(out chan<- prometheus.Metric) {
	stats, err := c.read()
	for i, m := range c.metrics {
		switch {
		case err != nil:
			out <- prometheus.NewInvalidMetric(c.descs[i], err)
			return
		case m.values == nil:
			out <- prometheus.MustNewConstMetric(c.descs[i], m.kind, m.value(&stats))
		default:
			for label, value := range m.values(&stats) {
				out <- prometheus.MustNewConstMetric(c.descs[i], m.kind, value, label)
			}
		}
	}
}

// count returns a counter without a label.
func count[S any](name, help string, value func(*S) uint64) metric[S] {
	return metric[S]{name: name, help: help, kind: prometheus.CounterValue, value: func(s *S) float64 { return float64(value(s)) }}
}

// gauge returns a gauge without a label.
func gauge[S any](name, help string, value func(*S) int) metric[S] {
	return metric[S]{name: name, help: help, kind: prometheus.GaugeValue, value: func(s *S) float64 { return float64(value(s)) }}
}

// counts returns a counter for each value of a label.
func counts[S any, N ~uint64 | ~int](name, help, label string, all func(*S) iter.Seq2[string, N]) metric[S] {
	return metric[S]{name: name, help: help, kind: prometheus.CounterValue, label: label, values: floats(all)}
}

// gauges returns a gauge for each value of a label.
func gauges[S any, N ~uint64 | ~int](name, help, label string, all func(*S) iter.Seq2[string, N]) metric[S] {
	return metric[S]{name: name, help: help, kind: prometheus.GaugeValue, label: label, values: floats(all)}
}

// floats converts the numbers that all yields.
func floats[S any, N ~uint64 | ~int](all func(*S) iter.Seq2[string, N]) func(*S) iter.Seq2[string, float64] {
	return func(s *S) iter.Seq2[string, float64] {
		return func(yield func(string, float64) bool) {
			for label, n := range all(s) {
				if !yield(label, float64(n)) {
					return
				}
			}
		}
	}
}

// named yields the names of a map's keys, and its values.
func named[K interface {
	comparable
	String() string
}, N any](m map[K]N) iter.Seq2[string, N] {
	return func(yield func(string, N) bool) {
		for key, n := range m {
			if !yield(key.String(), n) {
				return
			}
		}
	}
}
