package metrics

import (
	"iter"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quicway/quicway/relay/sni"
)

// SNI returns a collector for the counters of a relay by server name, quicway_sni_….
func SNI(s *sni.Server) prometheus.Collector {
	return newCollector("sni", sniMetrics, func() (sni.Stats, error) { return s.Stats(), nil })
}

var sniMetrics = []metric[sni.Stats]{
	count("accepted_total", "Connections of clients.", func(s *sni.Stats) uint64 { return s.Accepted }),
	count("relayed_total", "Connections that got an upstream.", func(s *sni.Stats) uint64 { return s.Relayed }),
	counts("failed_total", "Connections that got no upstream, by reason.", "reason",
		func(s *sni.Stats) iter.Seq2[string, uint64] { return named(s.Failed) }),
	count("reset_total", "Relayed connections that ended by a reset.", func(s *sni.Stats) uint64 { return s.Reset }),
	count("idle_total", "Relayed connections that ended because they had no new bytes for too long.", func(s *sni.Stats) uint64 { return s.Idle }),
	gauge("connections", "Connections that exist.", func(s *sni.Stats) int { return s.Open }),
	gauge("waiting", "Connections whose ClientHello is not complete.", func(s *sni.Stats) int { return s.Waiting }),
	count("client_bytes_total", "Bytes from clients, of connections that have ended.", func(s *sni.Stats) uint64 { return s.FromClients }),
	count("upstream_bytes_total", "Bytes from upstreams, of connections that have ended.", func(s *sni.Stats) uint64 { return s.FromUpstreams }),
	count("dial_failures_total", "Attempts to reach an upstream that failed.", func(s *sni.Stats) uint64 { return s.DialFailures }),
	count("accept_errors_total", "Errors of the listener.", func(s *sni.Stats) uint64 { return s.AcceptErrors }),
	{name: "upstream_seconds", help: "Times from the ClientHello to the upstream's acceptance.", collect: func(s *sni.Stats, e emitter) {
		t := &s.UpstreamTime
		buckets, sum := make(map[float64]uint64), uint64(0)
		for i, n := range t.Counts {
			if sum += n; i < len(t.Bounds) {
				buckets[t.Bounds[i]] = sum
			}
		}
		e.out <- prometheus.MustNewConstHistogram(e.desc, sum, t.Sum, buckets)
	}},
}
