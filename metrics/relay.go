package metrics

import (
	"iter"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quicway/quicway/relay"
)

// Relay collects the counters of a relay, quicway_relay_….
func Relay(s *relay.Server) prometheus.Collector {
	return newCollector("relay", relayMetrics, func() (relay.Stats, error) { return s.Stats(), nil })
}

var relayMetrics = []metric[relay.Stats]{
	count("forwarded_packets_total", "Packets that Go has forwarded.", func(s *relay.Stats) uint64 { return s.ForwardedPackets }),
	count("forwarded_bytes_total", "Bytes of UDP payload in them.", func(s *relay.Stats) uint64 { return s.ForwardedBytes }),
	count("lookups_total", "Routes that were looked up for them.", func(s *relay.Stats) uint64 { return s.Lookups }),
	count("offloaded_packets_total", "Packets that the kernel has forwarded.", func(s *relay.Stats) uint64 { return s.OffloadedPackets }),
	count("offloaded_bytes_total", "Bytes of UDP payload in them.", func(s *relay.Stats) uint64 { return s.OffloadedBytes }),
	count("offload_errors_total", "What the kernel did not take.", func(s *relay.Stats) uint64 { return s.OffloadErrors }),
	count("control_packets_total", "Packets for the relay itself.", func(s *relay.Stats) uint64 { return s.ControlPackets }),
	counts("dropped_total", "Packets that were dropped, by reason.", "reason",
		func(s *relay.Stats) iter.Seq2[string, uint64] { return named(s.Dropped) }),
	count("receive_overflow_total", "Packets that the system has dropped.", func(s *relay.Stats) uint64 { return s.ReceiveOverflow }),
	gauge("sessions", "Sessions that exist.", func(s *relay.Stats) int { return s.Sessions }),
	gauge("legs", "Legs that exist.", func(s *relay.Stats) int { return s.Legs }),
	gauge("offers", "Offers that wait.", func(s *relay.Stats) int { return s.Offers }),
	count("registered_total", "Legs that came.", func(s *relay.Stats) uint64 { return s.Registered }),
	count("refused_total", "Requests that were denied.", func(s *relay.Stats) uint64 { return s.Refused }),
	count("moved_total", "Changes of a leg's address.", func(s *relay.Stats) uint64 { return s.Moved }),
	count("expired_total", "Legs that fell silent.", func(s *relay.Stats) uint64 { return s.Expired }),
	count("store_errors_total", "IDs that the store did not take.", func(s *relay.Stats) uint64 { return s.StoreErrors }),
}
