package metrics

import (
	"iter"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quicway/quicway/xdp"
)

// XDP returns a collector for the counters of an XDP program, quicway_xdp_…. A scrape
// fails after the program's Close.
func XDP(p *xdp.Program) prometheus.Collector {
	return newCollector("xdp", xdpMetrics, p.Stats)
}

var xdpMetrics = []metric[map[xdp.Reason]uint64]{
	counts("packets_total", "Packets that the XDP program has seen, by what it has done with them.", "reason",
		func(stats *map[xdp.Reason]uint64) iter.Seq2[string, uint64] { return named(*stats) }),
}
