package metrics

import (
	"iter"
	"maps"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quicway/quicway/monitor"
)

// observed is what a monitor says of itself.
type observed struct {
	monitor.Stats
	byConfidence map[monitor.Confidence]int
}

// Monitor collects the counters of a monitor, quicway_monitor_…, and how many
// connections of each confidence there are.
func Monitor(m *monitor.Monitor) prometheus.Collector {
	return newCollector("monitor", monitorMetrics, func() (observed, error) {
		o := observed{Stats: m.Stats(), byConfidence: make(map[monitor.Confidence]int)}
		for c := monitor.Potential; c <= monitor.Proven; c++ {
			o.byConfidence[c] = 0
		}
		for c := range m.Connections() {
			o.byConfidence[c.Confidence]++
		}
		return o, nil
	})
}

var monitorMetrics = []metric[observed]{
	gauges("connections", "Connections that are kept, by how sure it is that they are.", "confidence",
		func(o *observed) iter.Seq2[string, int] { return named(o.byConfidence) }),
	count("packets_total", "Packets that came.", func(o *observed) uint64 { return o.Packets }),
	count("datagrams_total", "UDP datagrams in them.", func(o *observed) uint64 { return o.Datagrams }),
	counts("unread_total", "Packets without a datagram, by reason.", "reason",
		func(o *observed) iter.Seq2[string, uint64] { return maps.All(o.Unread) }),
	count("tracked_total", "Datagrams of a connection.", func(o *observed) uint64 { return o.Tracked }),
	count("potential_total", "Datagrams that may be of a connection.", func(o *observed) uint64 { return o.Potential }),
	count("other_total", "Datagrams of no connection.", func(o *observed) uint64 { return o.Other }),
	count("malformed_total", "Long headers that do not add up.", func(o *observed) uint64 { return o.Malformed }),
	count("unopened_total", "Initials that do not open.", func(o *observed) uint64 { return o.Unopened }),
	count("bogus_total", "Packets between a connection's endpoints that are not its.", func(o *observed) uint64 { return o.Bogus }),
	count("glued_total", "Datagrams that hold several that could not be told apart.", func(o *observed) uint64 { return o.Glued }),
	count("split_total", "Datagrams that hold several, and could.", func(o *observed) uint64 { return o.Split }),
	count("conflicts_total", "Connection IDs that another connection had.", func(o *observed) uint64 { return o.Conflicts }),
	count("path_overflow_total", "Paths that one connection had too many of.", func(o *observed) uint64 { return o.PathOverflow }),
	count("id_overflow_total", "IDs that one connection had too many of.", func(o *observed) uint64 { return o.IDOverflow }),
	count("change_overflow_total", "Changes of path that one connection had too many of.", func(o *observed) uint64 { return o.ChangeOverflow }),
	count("hello_errors_total", "Hellos that could not be read.", func(o *observed) uint64 { return o.HelloErrors }),
	count("handshakes_skipped_total", "Hellos that were not read for want of room.", func(o *observed) uint64 { return o.HandshakesSkipped }),
	count("events_lost_total", "Events that a reader was too slow for.", func(o *observed) uint64 { return o.EventsLost }),
	count("source_dropped_total", "Packets that were lost before the monitor saw them.", func(o *observed) uint64 { return o.SourceDropped }),
	count("flows_evicted_total", "Flows that the kernel has forgotten to make room.", func(o *observed) uint64 { return o.FlowsEvicted }),
	gauges("table_entries", "Entries of a table.", "table", func(o *observed) iter.Seq2[string, int] {
		return tables(o, func(t monitor.TableStats) int { return t.Entries })
	}),
	gauges("table_limit", "Entries that a table has room for.", "table", func(o *observed) iter.Seq2[string, int] {
		return tables(o, func(t monitor.TableStats) int { return t.Limit })
	}),
	counts("table_evicted_total", "Entries of a table that made room for others.", "table", func(o *observed) iter.Seq2[string, uint64] {
		return tables(o, func(t monitor.TableStats) uint64 { return t.Evicted })
	}),
	counts("table_expired_total", "Entries of a table that nothing was heard of.", "table", func(o *observed) iter.Seq2[string, uint64] {
		return tables(o, func(t monitor.TableStats) uint64 { return t.Expired })
	}),
}

func tables[N any](o *observed, of func(monitor.TableStats) N) iter.Seq2[string, N] {
	return func(yield func(string, N) bool) {
		for name, t := range o.Tables {
			if !yield(name, of(t)) {
				return
			}
		}
	}
}
