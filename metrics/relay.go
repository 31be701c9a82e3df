package metrics

import (
	"iter"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quicway/quicway/relay"
)

// Relay returns a collector for the counters of a relay, quicway_relay_….
func Relay(s *relay.Server) prometheus.Collector {
	return newCollector("relay", relayMetrics, func() (relay.Stats, error) { return s.Stats(), nil })
}

var relayMetrics = []metric[relay.Stats]{
	count("forwarded_packets_total", "Packets that Go has forwarded.", func(s *relay.Stats) uint64 { return s.ForwardedPackets }),
	count("forwarded_bytes_total", "Bytes of UDP payload that Go has forwarded.", func(s *relay.Stats) uint64 { return s.ForwardedBytes }),
	count("lookups_total", "Routes that were looked up for packets that Go has forwarded.", func(s *relay.Stats) uint64 { return s.Lookups }),
	count("offloaded_packets_total", "Packets that the kernel has forwarded.", func(s *relay.Stats) uint64 { return s.OffloadedPackets }),
	count("offloaded_bytes_total", "Bytes of UDP payload that the kernel has forwarded.", func(s *relay.Stats) uint64 { return s.OffloadedBytes }),
	count("offload_errors_total", "Updates that could not be passed to the kernel.", func(s *relay.Stats) uint64 { return s.OffloadErrors }),
	count("control_packets_total", "Packets for the relay itself.", func(s *relay.Stats) uint64 { return s.ControlPackets }),
	counts("dropped_total", "Packets that were dropped, by reason.", "reason",
		func(s *relay.Stats) iter.Seq2[string, uint64] { return named(s.Dropped) }),
	count("receive_overflow_total", "Packets that the system has dropped because the receive buffer was full.", func(s *relay.Stats) uint64 { return s.ReceiveOverflow }),
	gauge("sessions", "Open sessions.", func(s *relay.Stats) int { return s.Sessions }),
	gauge("legs", "Registered legs.", func(s *relay.Stats) int { return s.Legs }),
	gauge("offers", "Offers that wait for an answer.", func(s *relay.Stats) int { return s.Offers }),
	count("registered_total", "Registrations of legs.", func(s *relay.Stats) uint64 { return s.Registered }),
	count("refused_total", "Requests that were refused.", func(s *relay.Stats) uint64 { return s.Refused }),
	count("moved_total", "Changes of the address of a leg.", func(s *relay.Stats) uint64 { return s.Moved }),
	count("expired_total", "Legs that were removed because they were silent.", func(s *relay.Stats) uint64 { return s.Expired }),
	count("store_errors_total", "Errors of the store of connection IDs.", func(s *relay.Stats) uint64 { return s.StoreErrors }),
}
