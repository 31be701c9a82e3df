package metrics

import (
	"iter"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quicway/quicway/xdp"
)

// judged is what the kernel's program has counted.
type judged struct {
	reasons map[xdp.Reason]uint64
	sights  map[xdp.Sight]uint64
}

// XDP collects the counters of the kernel's program, quicway_xdp_…. A scrape after
// its Close fails.
func XDP(p *xdp.Program) prometheus.Collector {
	return newCollector("xdp", xdpMetrics, func() (j judged, err error) {
		if j.reasons, err = p.Stats(); err == nil {
			j.sights, err = p.Sights()
		}
		return j, err
	})
}

var xdpMetrics = []metric[judged]{
	counts("packets_total", "Packets, by what became of them.", "reason",
		func(j *judged) iter.Seq2[string, uint64] { return named(j.reasons) }),
	counts("monitor_total", "Packets that their flow did not expect, by what the monitor stage did, and flows.", "sight",
		func(j *judged) iter.Seq2[string, uint64] { return named(j.sights) }),
}
