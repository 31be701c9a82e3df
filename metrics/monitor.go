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
	gauges("connections", "QUIC connections that the monitor keeps, by how sure it is that they are QUIC.", "confidence",
		func(s *monitor.Stats) iter.Seq2[string, int] { return named(s.Connections) }),
	gauges("state_connections", "QUIC connections that the monitor keeps, by how far they have come: handshake, open, silent, ended.", "state",
		func(s *monitor.Stats) iter.Seq2[string, int] { return named(s.States) }),
	gauges("version_connections", "QUIC connections that the monitor keeps, by version.", "version",
		func(s *monitor.Stats) iter.Seq2[string, int] { return maps.All(s.Versions) }),
	gauges("alpn_connections", "QUIC connections that the monitor keeps, by the protocol that the client prefers.", "alpn",
		func(s *monitor.Stats) iter.Seq2[string, int] { return maps.All(s.ALPN) }),
	count("opened_total", "QUIC connections that the monitor has seen.", func(s *monitor.Stats) uint64 { return s.Opened }),
	histogram("handshake_rtt_seconds", "Round trips of the handshakes that the monitor has seen.", func(s *monitor.Stats) buckets { return cumulative(&s.HandshakeRTT) }),
	histograms("handshake_half_seconds", "Halves of the round trips of handshakes: between the place of the capture and the server, or the client.", "half", handshakeHalves),
	pathChanges("path_changes_total", "Changes of the path of QUIC connections that the monitor has seen, by kind and by how sure they are."),
	count("packets_total", "Packets that the monitor's source has delivered.", func(s *monitor.Stats) uint64 { return s.Packets }),
	count("datagrams_total", "UDP datagrams that the monitor has seen.", func(s *monitor.Stats) uint64 { return s.Datagrams }),
	counts("unread_total", "Packets in which the monitor has found no UDP datagram, by reason.", "reason",
		func(s *monitor.Stats) iter.Seq2[string, uint64] { return maps.All(s.Unread) }),
	count("tracked_total", "UDP datagrams of QUIC connections that the monitor has seen.", func(s *monitor.Stats) uint64 { return s.Tracked }),
	gauge("potential_datagrams", "UDP datagrams between unknown endpoints that may be QUIC.", func(s *monitor.Stats) int { return int(s.Potential) }),
	gauge("other_datagrams", "UDP datagrams that the monitor has seen and that belong to no connection.", func(s *monitor.Stats) int { return int(s.Other) }),
	gauge("filtered_datagrams", "UDP datagrams whose endpoints the monitor's filter excludes.", func(s *monitor.Stats) int { return int(s.Filtered) }),
	count("adopted_total", "UDP datagrams that turned out later to belong to a QUIC connection.", func(s *monitor.Stats) uint64 { return s.Adopted }),
	count("malformed_total", "Invalid long headers of a known QUIC version that the monitor has seen.", func(s *monitor.Stats) uint64 { return s.Malformed }),
	count("unopened_total", "Initials that the monitor has seen and that no known key decrypts.", func(s *monitor.Stats) uint64 { return s.Unopened }),
	count("bogus_total", "Packets between the endpoints of a QUIC connection that do not belong to it.", func(s *monitor.Stats) uint64 { return s.Bogus }),
	count("glued_total", "Packets with several UDP datagrams that the monitor could not tell apart.", func(s *monitor.Stats) uint64 { return s.Glued }),
	count("split_total", "UDP datagrams after the first one in packets with several that the monitor could tell apart.", func(s *monitor.Stats) uint64 { return s.Split }),
	count("conflicts_total", "Connection IDs that another QUIC connection had already.", func(s *monitor.Stats) uint64 { return s.Conflicts }),
	count("path_overflow_total", "Paths that the monitor has dropped because one connection or pair of endpoints had too many.", func(s *monitor.Stats) uint64 { return s.PathOverflow }),
	count("id_overflow_total", "Connection IDs that the monitor has dropped because one connection had too many.", func(s *monitor.Stats) uint64 { return s.IDOverflow }),
	count("change_overflow_total", "Changes of path that the monitor has dropped because one connection had too many.", func(s *monitor.Stats) uint64 { return s.ChangeOverflow }),
	count("hello_errors_total", "Invalid ClientHellos and ServerHellos that the monitor has seen.", func(s *monitor.Stats) uint64 { return s.HelloErrors }),
	count("handshakes_skipped_total", "Handshakes that the monitor has not read to their end because there were too many.", func(s *monitor.Stats) uint64 { return s.HandshakesSkipped }),
	count("events_lost_total", "Events of the monitor that were dropped because a reader was too slow.", func(s *monitor.Stats) uint64 { return s.EventsLost }),
	count("source_dropped_total", "Packets that were lost before the monitor read them.", func(s *monitor.Stats) uint64 { return s.SourceDropped }),
	count("flows_evicted_total", "Flows of the monitor that the kernel has removed to make room.", func(s *monitor.Stats) uint64 { return s.FlowsEvicted }),
	gauges("table_entries", "Entries of a table of the monitor.", "table", func(s *monitor.Stats) iter.Seq2[string, int] {
		return tables(s, func(t monitor.TableStats) int { return t.Entries })
	}),
	gauges("table_limit", "Limit of entries of a table of the monitor. Others make room.", "table", func(s *monitor.Stats) iter.Seq2[string, int] {
		return tables(s, func(t monitor.TableStats) int { return t.Limit })
	}),
	counts("table_evicted_total", "Entries of a table of the monitor that were removed to make room.", "table", func(s *monitor.Stats) iter.Seq2[string, uint64] {
		return tables(s, func(t monitor.TableStats) uint64 { return t.Evicted })
	}),
	counts("table_expired_total", "Entries of a table of the monitor that were removed because they were idle.", "table", func(s *monitor.Stats) iter.Seq2[string, uint64] {
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
func handshakeHalves(s *monitor.Stats) iter.Seq2[string, buckets] {
	return func(yield func(string, buckets) bool) {
		_ = yield("server", cumulative(&s.HandshakeServerSide)) && yield("client", cumulative(&s.HandshakeClientSide))
	}
}

// cumulative converts a monitor's histogram.
func cumulative(h *monitor.Histogram) buckets {
	b := buckets{counts: make(map[float64]uint64, len(h.Buckets)), all: h.Count, sum: h.Sum.Duration().Seconds()}
	for _, bucket := range h.Buckets {
		b.counts[bucket.UpTo.Duration().Seconds()] = bucket.Count
	}
	return b
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
