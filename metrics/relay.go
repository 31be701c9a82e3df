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

// number is 1 for true.
func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

var relayMetrics = []metric[relay.Stats]{
	count("forwarded_packets_total", "Packets between peers that the relay has forwarded in userspace.", func(s *relay.Stats) uint64 { return s.ForwardedPackets }),
	count("forwarded_bytes_total", "Bytes of UDP payload between peers that the relay has forwarded in userspace.", func(s *relay.Stats) uint64 { return s.ForwardedBytes }),
	count("lookups_total", "Connection IDs that the relay has looked up to forward packets. It looks up one for each run of packets.", func(s *relay.Stats) uint64 { return s.Lookups }),
	count("offloaded_packets_total", "Packets between peers that the relay's XDP program has forwarded in the kernel.", func(s *relay.Stats) uint64 { return s.OffloadedPackets }),
	count("offloaded_bytes_total", "Bytes of UDP payload between peers that the relay's XDP program has forwarded in the kernel.", func(s *relay.Stats) uint64 { return s.OffloadedBytes }),
	count("offload_errors_total", "Entries of the relay that the kernel did not take. The packets go on in userspace.", func(s *relay.Stats) uint64 { return s.OffloadErrors }),
	count("control_packets_total", "Packets for the relay itself, by which clients talk to it.", func(s *relay.Stats) uint64 { return s.ControlPackets }),
	counts("dropped_total", "Packets that the relay has dropped, by reason.", "reason",
		func(s *relay.Stats) iter.Seq2[string, uint64] { return named(s.Dropped) }),
	count("receive_overflow_total", "Packets for the relay that the system has dropped because its receive buffer was full.", func(s *relay.Stats) uint64 { return s.ReceiveOverflow }),
	count("registered_total", "Registrations of peers with the relay, without refreshes.", func(s *relay.Stats) uint64 { return s.Registered }),
	count("refused_total", "Requests to the relay that it has refused.", func(s *relay.Stats) uint64 { return s.Refused }),
	count("elsewhere_total", "Requests that the relay has refused because another relay may take the session. They are part of refused_total.", func(s *relay.Stats) uint64 { return s.Elsewhere }),
	count("tunnels_refused_total", "TCP connections, and requests for tunnels, that the relay has refused.", func(s *relay.Stats) uint64 { return s.TunnelsRefused }),
	count("old_secret_uses_total", "Accepted tokens that were made with another secret than the relay's present one.", func(s *relay.Stats) uint64 { return s.OldSecretUses }),
	count("moved_total", "Changes of the address of a peer at the relay.", func(s *relay.Stats) uint64 { return s.Moved }),
	count("expired_total", "Peers that the relay has forgotten because they were silent.", func(s *relay.Stats) uint64 { return s.Expired }),
	count("store_errors_total", "Connection IDs that the relay's store did not take, or not in time.", func(s *relay.Stats) uint64 { return s.StoreErrors }),
	gauge("draining", "1 if the relay takes no new sessions.", func(s *relay.Stats) int { return number(s.Draining) }),
	gauge("legs", "Peers that are registered with the relay, each once for each of its sessions.", func(s *relay.Stats) int { return s.Legs }),
	gauge("tunnels", "Tunnels over TCP at the relay, for clients that UDP does not reach.", func(s *relay.Stats) int { return s.Tunnels }),

	gauge("sessions", "Sessions of two peers at the relay.", func(s *relay.Stats) int { return s.Sessions }),
	gauge("sessions_limit", "Limit of sessions at the relay. Further ones are refused.", func(s *relay.Stats) int { return s.Limits.Sessions }),
	gauge("routes", "Connection IDs in the relay's store. 0 if the store does not say it.", func(s *relay.Stats) int { return s.Routes }),
	gauge("routes_limit", "Limit of connection IDs in the relay's store. 0 if the store does not say it.", func(s *relay.Stats) int { return s.Limits.Routes }),
	gauge("connections", "Control connections of clients at the relay, with those whose handshake is not complete.", func(s *relay.Stats) int { return s.Connections }),
	gauge("connections_limit", "Limit of control connections at the relay. Further ones are refused.", func(s *relay.Stats) int { return s.Limits.Connections }),
	gauge("handshakes", "Handshakes with the relay that are not complete, of clients that have answered no Retry.", func(s *relay.Stats) int { return s.Handshakes }),
	gauge("handshakes_limit", "Number of handshakes with the relay from which further clients get a Retry.", func(s *relay.Stats) int { return s.Limits.Handshakes }),
	gauge("retried_handshakes", "Handshakes with the relay that are not complete, of clients that have answered a Retry.", func(s *relay.Stats) int { return s.RetriedHandshakes }),
	gauge("retried_handshakes_limit", "Limit of handshakes with the relay of clients that have answered a Retry. Further ones are refused.", func(s *relay.Stats) int { return s.Limits.RetriedHandshakes }),
	gauge("unauthenticated", "Control connections at the relay that have shown no token and do not wait for offers.", func(s *relay.Stats) int { return s.Unauthenticated }),
	gauge("unauthenticated_limit", "Limit of control connections at the relay without a token that do not wait for offers. The oldest makes room.", func(s *relay.Stats) int { return s.Limits.Unauthenticated }),
	gauge("listeners", "Control connections at the relay that wait for offers without a token.", func(s *relay.Stats) int { return s.Listeners }),
	gauge("listeners_limit", "Limit of control connections at the relay that wait for offers without a token. The oldest makes room.", func(s *relay.Stats) int { return s.Limits.Listeners }),
	gauge("tunnel_connections", "TCP connections at the relay, with a tunnel or without one yet.", func(s *relay.Stats) int { return s.TunnelConnections }),
	gauge("tunnel_connections_limit", "Limit of TCP connections at the relay. Further ones are closed.", func(s *relay.Stats) int { return s.Limits.TunnelConnections }),
	gauge("offers", "Offers in the relay's mailbox that wait for an answer.", func(s *relay.Stats) int { return s.Offers }),
	gauge("offers_limit", "Limit of offers in the relay's mailbox.", func(s *relay.Stats) int { return s.Limits.Offers }),
	gauge("offer_bytes", "Bytes of the offers in the relay's mailbox.", func(s *relay.Stats) int { return s.OfferBytes }),
	gauge("offer_bytes_limit", "Limit of bytes of the offers in the relay's mailbox.", func(s *relay.Stats) int { return s.Limits.OfferBytes }),
	gauge("held_packets", "Packets that the relay holds until their peer is registered.", func(s *relay.Stats) int { return s.HeldPackets }),
	gauge("held_packets_limit", "Limit of packets that the relay holds until their peer is registered. Beyond it the account with most loses some, or further ones are dropped.", func(s *relay.Stats) int { return s.Limits.HeldPackets }),
	gauge("waiting_windows", "Windows of connection IDs at the relay that must move on.", func(s *relay.Stats) int { return s.WaitingWindows }),
	gauge("waiting_windows_limit", "Limit of windows of connection IDs at the relay that must move on. Further ones count as errors of the store.", func(s *relay.Stats) int { return s.Limits.WaitingWindows }),
}
