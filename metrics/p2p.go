package metrics

import (
	"fmt"
	"iter"
	"maps"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quicway/quicway/p2p"
)

// P2P returns a collector for the counters of an endpoint, quicway_p2p_…. The label relay has
// the addresses of configured relays only, and "other".
func P2P(e *p2p.Endpoint) prometheus.Collector {
	return newCollector("p2p", p2pMetrics, func() (p2p.EndpointStats, error) { return e.Stats(), nil })
}

var p2pMetrics = []metric[p2p.EndpointStats]{
	gauges("connections", "Connections between peers that exist, by the path that carries their packets: direct, lan, relay, or tunnel (the relay over TCP).", "path",
		func(s *p2p.EndpointStats) iter.Seq2[string, int] { return named(s.Connections) }),
	histograms("rtt_seconds", "Smoothed round-trip times of connections between peers, by path. Each connection counts about once in each of its keepalive periods, and at its end.", "path",
		func(s *p2p.EndpointStats) iter.Seq2[string, buckets] { return times(s.RTT) }),
	histogram("time_to_direct_seconds", "Times from the end of a handshake between peers to the first direct path. Connections without one do not count.",
		func(s *p2p.EndpointStats) buckets { return bucketsOf(s.TimeToDirect) }),
	counts("path_events_total", "Beginnings and changes of the paths of connections between peers, by reason.", "reason", pathEvents),
	counts("migrations_total", "Migrations of connections between peers to a direct path, by its kind.", "path",
		func(s *p2p.EndpointStats) iter.Seq2[string, uint64] { return named(s.Migrations) }),
	count("probe_rounds_total", "Rounds of probes for a direct path between peers.", func(s *p2p.EndpointStats) uint64 { return s.Attempts }),
	count("fallbacks_total", "Direct paths between peers that have died in use.", func(s *p2p.EndpointStats) uint64 { return s.Fallbacks }),
	count("relay_changes_total", "Times that the packets of a connection between peers began to go through another relay.", func(s *p2p.EndpointStats) uint64 { return s.RelayChanges }),
	counts("dials_total", "Dials to peers that have ended: connected, or why not.", "outcome",
		func(s *p2p.EndpointStats) iter.Seq2[string, uint64] { return maps.All(s.Dials) }),
	counts("offers_total", "Offers of peers that the endpoint was to answer: connected, or why not.", "outcome",
		func(s *p2p.EndpointStats) iter.Seq2[string, uint64] { return maps.All(s.Offers) }),
	counts("ended_total", "Connections between peers that have ended, by how.", "reason",
		func(s *p2p.EndpointStats) iter.Seq2[string, uint64] { return maps.All(s.Ended) }),
	gauges("relay_connections", "Connections between peers that exist, by the relay through which their packets go, or would go without a direct path. other: relays that are not configured.", "relay", relayConnections),
	relayGauge("relay_rtt_seconds", "Round-trip time between the endpoint and a configured relay, or 0 if it has not been measured.",
		func(r *p2p.RelayStats) float64 { return r.RTT.Seconds() }),
	relayGauge("relay_down", "1 if the endpoint cannot use a configured relay at present.", func(r *p2p.RelayStats) float64 { return float64(number(r.Down)) }),
	relayGauge("relay_draining", "1 if a configured relay is about to stop.", func(r *p2p.RelayStats) float64 { return float64(number(r.Draining)) }),
	gauge("dialing", "Dials to peers that are under way.", func(s *p2p.EndpointStats) int { return s.Dialing }),
	gauge("answering", "Offers from the mailbox that the endpoint is answering.", func(s *p2p.EndpointStats) int { return s.Answering }),
	gauge("answering_limit", "Limit of offers from the mailbox that the endpoint answers at the same time.", func(s *p2p.EndpointStats) int { return s.Limits.Answering }),
	gauge("unaccepted", "Connections from peers that the program has not accepted yet.", func(s *p2p.EndpointStats) int { return s.Unaccepted }),
	gauge("unaccepted_limit", "Limit of connections from peers that the program has not accepted yet. Further ones are refused.", func(s *p2p.EndpointStats) int { return s.Limits.Unaccepted }),
	gauge("used_offers", "Answered offers that the endpoint remembers, so that none is answered twice.", func(s *p2p.EndpointStats) int { return s.UsedOffers }),
	gauge("used_offers_limit", "Limit of answered offers that the endpoint remembers.", func(s *p2p.EndpointStats) int { return s.Limits.UsedOffers }),
	count("unsorted_total", "Packets at the endpoint's sockets that belong to no connection.", func(s *p2p.EndpointStats) uint64 { return s.Unsorted }),
	count("unsent_total", "Packets of the endpoint that the system did not send.", func(s *p2p.EndpointStats) uint64 { return s.Unsent }),
	count("receive_overflow_total", "Packets for the endpoint that the system has dropped because they were not read in time.", func(s *p2p.EndpointStats) uint64 { return s.ReceiveOverflow }),
}

// pathReasons are the names of reasons as labels.
var pathReasons = map[p2p.PathReason]string{
	p2p.WhyEstablished: "established", p2p.WhyAddressChanged: "address_changed",
	p2p.WhyRelayLost: "relay_lost", p2p.WhyRelayBack: "relay_back",
	p2p.WhyPunched: "punched", p2p.WhyBetter: "better_path",
	p2p.WhyNoAnswer: "no_answer", p2p.WhySilent: "no_addresses",
	p2p.WhyPathDied: "path_died", p2p.WhyPeerMoved: "peer_moved",
	p2p.WhyNotUsable: "not_usable", p2p.WhyPolicy: "policy",
	p2p.WhyRelayDied: "relay_died", p2p.WhyRelayDrains: "relay_drains",
	p2p.WhyRelayNearer: "relay_nearer", p2p.WhyPeerTurned: "peer_turned",
	p2p.WhyUDPBlocked: "udp_blocked", p2p.WhyUDPBack: "udp_back",
}

// pathEvents yields the events by reason.
func pathEvents(s *p2p.EndpointStats) iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		for reason, n := range s.PathEvents {
			name, ok := pathReasons[reason]
			if !ok {
				name = fmt.Sprintf("reason_%d", uint8(reason))
			}
			if !yield(name, n) {
				return
			}
		}
	}
}

// times yields histograms by the names of their keys.
func times(all map[p2p.PathKind]p2p.Times) iter.Seq2[string, buckets] {
	return func(yield func(string, buckets) bool) {
		for kind, t := range all {
			if !yield(kind.String(), bucketsOf(t)) {
				return
			}
		}
	}
}

func bucketsOf(t p2p.Times) buckets {
	bounds := make([]float64, len(t.Bounds))
	for i, b := range t.Bounds {
		bounds[i] = time.Duration.Seconds(b)
	}
	return fromCounts(bounds, t.Counts, t.Sum.Seconds())
}

// relays yields the configured relays by a label. Two whose addresses differ only in what is
// no text are one.
func relays(s *p2p.EndpointStats) iter.Seq2[string, *p2p.RelayStats] {
	return func(yield func(string, *p2p.RelayStats) bool) {
		seen := make(map[string]bool)
		for i := range s.Relays {
			label := strings.ToValidUTF8(s.Relays[i].Addr, "?")
			if seen[label] {
				continue
			}
			if seen[label] = true; !yield(label, &s.Relays[i]) {
				return
			}
		}
	}
}

// relayGauge returns a gauge for each configured relay.
func relayGauge(name, help string, of func(*p2p.RelayStats) float64) metric[p2p.EndpointStats] {
	return gauges(name, help, "relay", func(s *p2p.EndpointStats) iter.Seq2[string, float64] {
		return func(yield func(string, float64) bool) {
			for label, r := range relays(s) {
				if !yield(label, of(r)) {
					return
				}
			}
		}
	})
}

// relayConnections yields the connections of the configured relays, and those of all others.
func relayConnections(s *p2p.EndpointStats) iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		for label, r := range relays(s) {
			if !yield(label, r.Connections) {
				return
			}
		}
		yield("other", s.OtherRelays)
	}
}
