package metrics

import (
	"iter"
	"maps"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quicway/quicway/relay/sni"
)

// SNI returns a collector for the counters of a relay by server name, quicway_sni_….
func SNI(s *sni.Server) prometheus.Collector {
	return newCollector("sni", sniMetrics, func() (sni.Stats, error) { return s.Stats(), nil })
}

var sniMetrics = []metric[sni.Stats]{
	count("accepted_total", "TLS connections over TCP that clients have opened to the relay by name.", func(s *sni.Stats) uint64 { return s.Accepted }),
	count("relayed_total", "TLS connections over TCP that got an upstream.", func(s *sni.Stats) uint64 { return s.Relayed }),
	counts("failed_total", "TLS connections over TCP that got no upstream, by reason.", "reason",
		func(s *sni.Stats) iter.Seq2[string, uint64] { return named(s.Failed) }),
	count("reset_total", "Relayed TLS connections over TCP that ended by a reset.", func(s *sni.Stats) uint64 { return s.Reset }),
	count("idle_total", "Relayed TLS connections over TCP that ended because they had no new bytes for too long.", func(s *sni.Stats) uint64 { return s.Idle }),
	count("client_bytes_total", "Bytes from clients, of TLS connections over TCP that have ended.", func(s *sni.Stats) uint64 { return s.FromClients }),
	count("upstream_bytes_total", "Bytes from upstreams, of TLS connections over TCP that have ended.", func(s *sni.Stats) uint64 { return s.FromUpstreams }),
	count("dial_failures_total", "Attempts to reach an upstream over TCP that failed.", func(s *sni.Stats) uint64 { return s.DialFailures }),
	count("accept_errors_total", "Errors of the TCP listener of the relay by name.", func(s *sni.Stats) uint64 { return s.AcceptErrors }),
	gauge("connections", "TLS connections over TCP at the relay by name.", func(s *sni.Stats) int { return s.Open }),
	gauge("connections_limit", "Limit of TLS connections over TCP at the relay by name. Further ones wait in the system's queue.", func(s *sni.Stats) int { return s.Limits.Connections }),
	gauge("waiting", "TLS connections over TCP whose ClientHello is not complete.", func(s *sni.Stats) int { return s.Waiting }),
	gauge("waiting_limit", "Limit of TLS connections over TCP whose ClientHello is not complete. The oldest makes room.", func(s *sni.Stats) int { return s.Limits.Waiting }),
	count("quic_accepted_total", "QUIC connections that clients have begun to open to the relay by name.", func(s *sni.Stats) uint64 { return s.QUIC.Accepted }),
	count("quic_relayed_total", "QUIC connections by name whose client receives what the upstream sends.", func(s *sni.Stats) uint64 { return s.QUIC.Relayed }),
	counts("quic_failed_total", "Attempts of QUIC connections by name that failed, by reason.", "reason",
		func(s *sni.Stats) iter.Seq2[string, uint64] { return named(s.QUIC.Failed) }),
	count("quic_moved_total", "Flows of QUIC connections by name that came from another address.", func(s *sni.Stats) uint64 { return s.QUIC.Moved }),
	count("quic_displaced_total", "Flows of QUIC connections by name that made room for others.", func(s *sni.Stats) uint64 { return s.QUIC.Displaced }),
	count("quic_idle_total", "Flows of QUIC connections by name that ended because they had no datagrams for too long.", func(s *sni.Stats) uint64 { return s.QUIC.Idle }),
	gauge("quic_flows", "Flows of QUIC connections at the relay by name.", func(s *sni.Stats) int { return s.QUIC.Flows }),
	gauge("quic_flows_limit", "Limit of flows of QUIC connections at the relay by name.", func(s *sni.Stats) int { return s.Limits.QUICFlows }),
	gauge("quic_waiting", "Flows of QUIC connections by name whose client has not confirmed its address.", func(s *sni.Stats) int { return s.QUIC.Waiting }),
	gauge("quic_waiting_limit", "Limit of flows of QUIC connections by name whose client has not confirmed its address. The oldest makes room.", func(s *sni.Stats) int { return s.Limits.QUICWaiting }),
	count("quic_client_datagrams_total", "Datagrams of QUIC from clients that the relay by name has relayed.", func(s *sni.Stats) uint64 { return s.QUIC.DatagramsFromClients }),
	count("quic_client_bytes_total", "Bytes of QUIC from clients that the relay by name has relayed.", func(s *sni.Stats) uint64 { return s.QUIC.FromClients }),
	count("quic_upstream_datagrams_total", "Datagrams of QUIC from upstreams that the relay by name has relayed.", func(s *sni.Stats) uint64 { return s.QUIC.DatagramsFromUpstreams }),
	count("quic_upstream_bytes_total", "Bytes of QUIC from upstreams that the relay by name has relayed.", func(s *sni.Stats) uint64 { return s.QUIC.FromUpstreams }),
	counts("quic_dropped_total", "Datagrams of QUIC that the relay by name has not relayed, by reason.", "reason",
		func(s *sni.Stats) iter.Seq2[string, uint64] { return named(s.QUIC.Dropped) }),
	count("quic_lost_total", "Datagrams of QUIC from clients that the system has dropped because they were not read in time.", func(s *sni.Stats) uint64 { return s.QUIC.Lost }),
	count("quic_refused_total", "Datagrams of QUIC that the system has refused to send for the relay by name.", func(s *sni.Stats) uint64 { return s.QUIC.Refused }),
	count("quic_dial_failures_total", "Upstreams that were found not to answer QUIC.", func(s *sni.Stats) uint64 { return s.QUIC.DialFailures }),
	histogram("quic_upstream_seconds", "Times from the ClientHello to the upstream's first datagram, over QUIC.", func(s *sni.Stats) buckets { return timesOf(&s.QUIC.UpstreamTime) }),
	gauge("splice_off", "1 if all TLS connections over TCP stay in userspace although the server has a Splice.", func(s *sni.Stats) int { return min(len(s.Splice.Off), 1) }),
	gauge("splice_connections", "TLS connections over TCP that the kernel relays.", func(s *sni.Stats) int { return s.Splice.InKernel }),
	gauge("splice_connections_limit", "Limit of TLS connections over TCP that the kernel relays. Further ones stay in userspace. 0 if the kernel relays none.", func(s *sni.Stats) int { return s.Limits.InKernel }),
	count("splice_takeovers_total", "Times that a TLS connection over TCP went into the kernel.", func(s *sni.Stats) uint64 { return s.Splice.Takeovers }),
	count("splice_adopted_total", "TLS connections over TCP that another process had left in the kernel.", func(s *sni.Stats) uint64 { return s.Splice.Adopted }),
	counts("splice_not_taken_total", "Times that a TLS connection over TCP stayed in userspace that might have gone into the kernel, by reason.", "reason",
		func(s *sni.Stats) iter.Seq2[string, uint64] { return maps.All(s.Splice.NotTaken) }),
	counts("splice_ways_back_total", "Times that a TLS connection over TCP came back from the kernel, by reason.", "reason",
		func(s *sni.Stats) iter.Seq2[string, uint64] { return maps.All(s.Splice.WaysBack) }),
	count("splice_failed_ways_back_total", "Times that a TLS connection over TCP could not come back, and stayed in the kernel.",
		func(s *sni.Stats) uint64 { return s.Splice.WaysBackFailed }),
	histogram("upstream_seconds", "Times from the ClientHello to the upstream's acceptance, over TCP.", func(s *sni.Stats) buckets { return timesOf(&s.UpstreamTime) }),
}

// timesOf converts a histogram of the relay by name.
func timesOf(t *sni.Times) buckets { return fromCounts(t.Bounds, t.Counts, t.Sum) }
