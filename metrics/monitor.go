package metrics

import (
	"iter"
	"maps"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quicway/quicway/monitor"
)

// Monitor collects the counters of a monitor, quicway_monitor_…, and how many
// connections of each confidence there are.
func Monitor(m *monitor.Monitor) prometheus.Collector {
	return newCollector("monitor", monitorMetrics, func() (monitor.Stats, error) { return m.Stats(), nil })
}

var monitorMetrics = []metric[monitor.Stats]{
	gauges("connections", "Connections that are kept, by how sure it is that they are.", "confidence",
		func(s *monitor.Stats) iter.Seq2[string, int] { return named(s.Connections) }),
	count("packets_total", "Packets that came.", func(s *monitor.Stats) uint64 { return s.Packets }),
	count("datagrams_total", "UDP datagrams in them.", func(s *monitor.Stats) uint64 { return s.Datagrams }),
	counts("unread_total", "Packets without a datagram, by reason.", "reason",
		func(s *monitor.Stats) iter.Seq2[string, uint64] { return maps.All(s.Unread) }),
	count("tracked_total", "Datagrams of a connection.", func(s *monitor.Stats) uint64 { return s.Tracked }),
	count("potential_total", "Datagrams that may be of a connection.", func(s *monitor.Stats) uint64 { return s.Potential }),
	count("other_total", "Datagrams of no connection.", func(s *monitor.Stats) uint64 { return s.Other }),
	count("malformed_total", "Long headers that do not add up.", func(s *monitor.Stats) uint64 { return s.Malformed }),
	count("unopened_total", "Initials that do not open.", func(s *monitor.Stats) uint64 { return s.Unopened }),
	count("bogus_total", "Packets between a connection's endpoints that are not its.", func(s *monitor.Stats) uint64 { return s.Bogus }),
	count("glued_total", "Datagrams that hold several that could not be told apart.", func(s *monitor.Stats) uint64 { return s.Glued }),
	count("split_total", "Datagrams that hold several, and could.", func(s *monitor.Stats) uint64 { return s.Split }),
	count("conflicts_total", "Connection IDs that another connection had.", func(s *monitor.Stats) uint64 { return s.Conflicts }),
	count("path_overflow_total", "Paths that one connection had too many of.", func(s *monitor.Stats) uint64 { return s.PathOverflow }),
	count("id_overflow_total", "IDs that one connection had too many of.", func(s *monitor.Stats) uint64 { return s.IDOverflow }),
	count("change_overflow_total", "Changes of path that one connection had too many of.", func(s *monitor.Stats) uint64 { return s.ChangeOverflow }),
	count("hello_errors_total", "Hellos that could not be read.", func(s *monitor.Stats) uint64 { return s.HelloErrors }),
	count("handshakes_skipped_total", "Hellos that were not read for want of room.", func(s *monitor.Stats) uint64 { return s.HandshakesSkipped }),
	count("events_lost_total", "Events that a reader was too slow for.", func(s *monitor.Stats) uint64 { return s.EventsLost }),
	count("source_dropped_total", "Packets that were lost before the monitor saw them.", func(s *monitor.Stats) uint64 { return s.SourceDropped }),
	count("flows_evicted_total", "Flows that the kernel has forgotten to make room.", func(s *monitor.Stats) uint64 { return s.FlowsEvicted }),
	gauges("table_entries", "Entries of a table.", "table", func(s *monitor.Stats) iter.Seq2[string, int] {
		return tables(s, func(t monitor.TableStats) int { return t.Entries })
	}),
	gauges("table_limit", "Entries that a table has room for.", "table", func(s *monitor.Stats) iter.Seq2[string, int] {
		return tables(s, func(t monitor.TableStats) int { return t.Limit })
	}),
	counts("table_evicted_total", "Entries of a table that made room for others.", "table", func(s *monitor.Stats) iter.Seq2[string, uint64] {
		return tables(s, func(t monitor.TableStats) uint64 { return t.Evicted })
	}),
	counts("table_expired_total", "Entries of a table that nothing was heard of.", "table", func(s *monitor.Stats) iter.Seq2[string, uint64] {
		return tables(s, func(t monitor.TableStats) uint64 { return t.Expired })
	}),
}

func tables[N any](s *monitor.Stats, of func(monitor.TableStats) N) iter.Seq2[string, N] {
	return func(yield func(string, N) bool) {
		for name, t := range s.Tables {
			if !yield(name, of(t)) {
				return
			}
		}
	}
}
