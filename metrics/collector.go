package metrics

import (
	"iter"
	"math"

	"github.com/prometheus/client_golang/prometheus"
)

// namespace is the prefix of all names.
const namespace = "quicway"

// metric is something that is collected from a package's Stats.
type metric[S any] struct {
	name, help string
	labels     []string
	collect    func(*S, emitter)
}

// emitter sends the values of one metric to Prometheus.
type emitter struct {
	desc *prometheus.Desc
	out  chan<- prometheus.Metric
}

// number sends a number with the values of the metric's labels.
func (e emitter) number(kind prometheus.ValueType, v float64, labels ...string) {
	e.out <- prometheus.MustNewConstMetric(e.desc, kind, v, labels...)
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
		c.descs = append(c.descs, prometheus.NewDesc(prometheus.BuildFQName(namespace, subsystem, m.name), m.help, m.labels, nil))
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
	if err != nil {
		out <- prometheus.NewInvalidMetric(c.descs[0], err)
		return
	}
	for i, m := range c.metrics {
		m.collect(&stats, emitter{c.descs[i], out})
	}
}

// count returns a counter without a label.
func count[S any](name, help string, value func(*S) uint64) metric[S] {
	return single(name, help, prometheus.CounterValue, value)
}

// gauge returns a gauge without a label.
func gauge[S any](name, help string, value func(*S) int) metric[S] {
	return single(name, help, prometheus.GaugeValue, value)
}

// counts returns a counter for each value of a label.
func counts[S any, N ~uint64 | ~int](name, help, label string, all func(*S) iter.Seq2[string, N]) metric[S] {
	return labeled(name, help, prometheus.CounterValue, label, all)
}

// gauges returns a gauge for each value of a label.
func gauges[S any, N ~uint64 | ~int | ~float64](name, help, label string, all func(*S) iter.Seq2[string, N]) metric[S] {
	return labeled(name, help, prometheus.GaugeValue, label, all)
}

// limit returns a gauge that is a limit. Prometheus sees no limit as infinity, so that what
// exists is 0 % of it.
func limit[S any](name, help string, value func(*S) int) metric[S] {
	return metric[S]{name: name, help: help, collect: func(s *S, e emitter) {
		n := float64(value(s))
		if n == 0 {
			n = math.Inf(1)
		}
		e.number(prometheus.GaugeValue, n)
	}}
}

// single returns a metric that is one number.
func single[S any, N ~uint64 | ~int](name, help string, kind prometheus.ValueType, number func(*S) N) metric[S] {
	return metric[S]{name: name, help: help, collect: func(s *S, e emitter) { e.number(kind, float64(number(s))) }}
}

// labeled returns a metric that has a number for each value of a label.
func labeled[S any, N ~uint64 | ~int | ~float64](name, help string, kind prometheus.ValueType, label string, all func(*S) iter.Seq2[string, N]) metric[S] {
	return metric[S]{name: name, help: help, labels: []string{label}, collect: func(s *S, e emitter) {
		for value, n := range all(s) {
			e.number(kind, float64(n), value)
		}
	}}
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
