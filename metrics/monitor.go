package metrics

import (
	"iter"
	"maps"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quicway/quicway/monitor"
)

// Monitor returns a collector for the counters of a monitor, quicway_monitor_….
func Monitor(m *monitor.Monitor) prometheus.Collector {
	return newCollector("monitor", monitorMetrics, func() (monitor.Stats, error) { return m.Stats(), nil })
}

var monitorMetrics = []metric[monitor.Stats]{
	gauges("connections", "Connections that are kept, by how sure it is that they are QUIC.", "confidence",
		func(s *monitor.Stats) iter.Seq2[string, int] { return named(s.Connections) }),
	gauges("version_connections", "Connections that are kept, by version.", "version",
		func(s *monitor.Stats) iter.Seq2[string, int] { return maps.All(s.Versions) }),
	gauges("alpn_connections", "Connections that are kept, by the protocol that the client prefers.", "alpn",
		func(s *monitor.Stats) iter.Seq2[string, int] { return maps.All(s.ALPN) }),
	count("opened_total", "Connections that were seen.", func(s *monitor.Stats) uint64 { return s.Opened }),
	histogram("handshake_rtt_seconds", "Round trips of handshakes.", func(s *monitor.Stats) *monitor.Histogram { return &s.HandshakeRTT }),
	histograms("handshake_half_seconds", "Halves of these round trips: between the place of the capture and the server, or the client.", "half", handshakeHalves),
	pathChanges("path_changes_total", "Changes of path, by kind and by how sure they are."),
	count("packets_total", "Packets from the source.", func(s *monitor.Stats) uint64 { return s.Packets }),
	count("datagrams_total", "UDP datagrams in these packets.", func(s *monitor.Stats) uint64 { return s.Datagrams }),
	counts("unread_total", "Packets without a UDP datagram, by reason.", "reason",
		func(s *monitor.Stats) iter.Seq2[string, uint64] { return maps.All(s.Unread) }),
	count("tracked_total", "Datagrams that belong to a connection.", func(s *monitor.Stats) uint64 { return s.Tracked }),
	gauge("potential_datagrams", "Datagrams between unknown endpoints that may be QUIC.", func(s *monitor.Stats) int { return int(s.Potential) }),
	gauge("other_datagrams", "Datagrams that belong to no connection.", func(s *monitor.Stats) int { return int(s.Other) }),
	gauge("filtered_datagrams", "Datagrams whose endpoints the filter excludes.", func(s *monitor.Stats) int { return int(s.Filtered) }),
	count("adopted_total", "Datagrams that turned out later to belong to a connection.", func(s *monitor.Stats) uint64 { return s.Adopted }),
	count("malformed_total", "Invalid long headers of a known version.", func(s *monitor.Stats) uint64 { return s.Malformed }),
	count("unopened_total", "Initials that no known key decrypts.", func(s *monitor.Stats) uint64 { return s.Unopened }),
	count("bogus_total", "Packets between a connection's endpoints that do not belong to it.", func(s *monitor.Stats) uint64 { return s.Bogus }),
	count("glued_total", "Packets with several datagrams that could not be told apart.", func(s *monitor.Stats) uint64 { return s.Glued }),
	count("split_total", "Datagrams after the first one in packets with several that could be told apart.", func(s *monitor.Stats) uint64 { return s.Split }),
	count("conflicts_total", "Connection IDs that another connection had already.", func(s *monitor.Stats) uint64 { return s.Conflicts }),
	count("path_overflow_total", "Paths that were dropped because one connection or pair of endpoints had too many.", func(s *monitor.Stats) uint64 { return s.PathOverflow }),
	count("id_overflow_total", "Connection IDs that were dropped because one connection had too many.", func(s *monitor.Stats) uint64 { return s.IDOverflow }),
	count("change_overflow_total", "Changes of path that were dropped because one connection had too many.", func(s *monitor.Stats) uint64 { return s.ChangeOverflow }),
	count("hello_errors_total", "Invalid ClientHellos and ServerHellos.", func(s *monitor.Stats) uint64 { return s.HelloErrors }),
	count("handshakes_skipped_total", "Handshakes that were not read to their end because there were too many.", func(s *monitor.Stats) uint64 { return s.HandshakesSkipped }),
	count("events_lost_total", "Events that were dropped because a reader was too slow.", func(s *monitor.Stats) uint64 { return s.EventsLost }),
	count("source_dropped_total", "Packets that were lost before the monitor read them.", func(s *monitor.Stats) uint64 { return s.SourceDropped }),
	count("flows_evicted_total", "Flows that the kernel has removed to make room.", func(s *monitor.Stats) uint64 { return s.FlowsEvicted }),
	gauges("table_entries", "Entries of a table.", "table", func(s *monitor.Stats) iter.Seq2[string, int] {
		return tables(s, func(t monitor.TableStats) int { return t.Entries })
	}),
	gauges("table_limit", "Limit of entries of a table.", "table", func(s *monitor.Stats) iter.Seq2[string, int] {
		return tables(s, func(t monitor.TableStats) int { return t.Limit })
	}),
	counts("table_evicted_total", "Entries of a table that were removed to make room.", "table", func(s *monitor.Stats) iter.Seq2[string, uint64] {
		return tables(s, func(t monitor.TableStats) uint64 { return t.Evicted })
	}),
	counts("table_expired_total", "Entries of a table that were removed because they were idle.", "table", func(s *monitor.Stats) iter.Seq2[string, uint64] {
		return tables(s, func(t monitor.TableStats) uint64 { return t.Expired })
	}),
}

// tables yields the names of the tables, and one number of each.
func tables[N any](s *monitor.Stats, of func(monitor.TableStats) N) iter.Seq2[string, N] {
	return func(yield func(string, N) bool) {
		for name, t := range s.Tables {
			if !yield(name, of(t)) {
				return
			}
		}
	}
}

// handshakeHalves yields the halves of the round trips of handshakes.
func handshakeHalves(s *monitor.Stats) iter.Seq2[string, *monitor.Histogram] {
	return func(yield func(string, *monitor.Histogram) bool) {
		_ = yield("server", &s.HandshakeServerSide) && yield("client", &s.HandshakeClientSide)
	}
}

// pathChanges returns a counter for each kind of change of path, and each confidence.
func pathChanges(name, help string) metric[monitor.Stats] {
	return metric[monitor.Stats]{name: name, help: help, labels: []string{"kind", "confidence"}, collect: func(s *monitor.Stats, e emitter) {
		for kind, levels := range s.PathChanges {
			for level, n := range levels {
				e.number(prometheus.CounterValue, float64(n), kind.String(), level.String())
			}
		}
	}}
}
