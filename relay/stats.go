package relay

import (
	"fmt"
	"sync/atomic"

	"github.com/quicway/quicway/internal/ratelog"
)

// Reason is why a packet was dropped.
type Reason uint8

// The reasons.
const (
	// DropShort: the packet is too short for its header.
	DropShort Reason = iota
	// DropUnknownID: a short header with a connection ID that belongs to no leg.
	DropUnknownID
	// DropWrongSource: the connection ID belongs to a leg, but the packet does not
	// come from the address of the other leg.
	DropWrongSource
	// DropNoPeer: the packet comes from a leg, but the other leg is not registered
	// yet, or is gone. Or it is for a leg, and the leg that it may come from has not
	// been registered within a second, or at another address.
	DropNoPeer
	// DropHopLimit: the hop limit or TTL of the packet was 1 (RFC 1812 §5.3.1).
	DropHopLimit
	// DropRelayed: a packet with a long header from a relay's own QUIC, or a Version
	// Negotiation packet, whose connection ID belongs to a leg. It is not forwarded,
	// so that no client completes a handshake with a relay at the address of another
	// relay.
	DropRelayed
	// DropUnproven: a packet of the relay's own QUIC, with bit 7 of the connection ID
	// clear, to an address at which no handshake was completed. It is not sent,
	// because another relay could forward it.
	DropUnproven
	// DropControlQueue: a packet to the relay's own QUIC, which did not keep up.
	DropControlQueue
	// DropSend: the system refused to send the packet.
	DropSend
	// DropAmplification: a packet of the relay's own QUIC to an address that has not
	// been validated, and has sent less than a third of what the relay would then
	// have sent (RFC 9000 §8.1, §8.2.1).
	DropAmplification
	// DropTunnel: a packet to a tunnel whose client does not read fast enough, or that
	// has ended.
	DropTunnel

	numReasons
)

var reasonNames = [numReasons]string{
	DropShort:        "short",
	DropUnknownID:    "unknown_id",
	DropWrongSource:  "wrong_source",
	DropNoPeer:       "no_peer",
	DropHopLimit:     "hop_limit",
	DropRelayed:      "relayed",
	DropUnproven:     "unproven",
	DropControlQueue: "control_queue",
	DropSend:         "send",

	DropAmplification: "amplification",
	DropTunnel:        "tunnel",
}

// String returns a name for the label of a metric.
func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Stats are the counters of a [Server] from its start, and how many of some things exist now.
type Stats struct {
	// ForwardedPackets and ForwardedBytes count the UDP datagrams that the server
	// has forwarded, and the bytes of their payloads. Those that the kernel has
	// forwarded are not included.
	ForwardedPackets, ForwardedBytes uint64
	// Lookups counts the look-ups of connection IDs. The server looks up the ID once
	// for each run of packets.
	Lookups uint64
	// OffloadedPackets and OffloadedBytes count what the kernel has forwarded
	// ([Config.XDP]). They may be a second old. OffloadErrors counts the entries that
	// the kernel did not take.
	OffloadedPackets, OffloadedBytes, OffloadErrors uint64
	// ControlPackets counts the packets to the relay's own QUIC.
	ControlPackets uint64
	// Dropped counts the dropped packets by reason. It has an entry for each Reason.
	Dropped map[Reason]uint64
	// ReceiveOverflow counts the packets that the system dropped because the server
	// did not read them in time. It is 0 if the system does not report them.
	ReceiveOverflow uint64

	// Sessions, Legs, Offers and Tunnels are how many exist now, and OfferBytes the size of
	// the offers together.
	Sessions, Legs, Offers, OfferBytes, Tunnels int
	// TunnelConnections is how many TCP connections exist now ([Server.ServeTCP]), with a
	// tunnel or without one yet. [Config.MaxTunnels] bounds them.
	TunnelConnections int
	// Connections is how many control connections exist now, also with a handshake that is
	// not complete. Handshakes is the number of these handshakes, and RetriedHandshakes that
	// of those whose client has answered a Retry, which are not in Handshakes.
	Connections, Handshakes, RetriedHandshakes int
	// Listeners is the number of control connections that wait for offers to their own key
	// without an access token, and Unauthenticated that of the others that have shown none.
	Unauthenticated, Listeners int
	// Routes is the number of connection IDs in the Store, or 0 if that is no
	// [cid.MemoryStore].
	Routes int
	// HeldPackets is the number of packets that are held for legs which are being
	// registered, and WaitingWindows that of windows that must move on.
	HeldPackets, WaitingWindows int
	// Limits are the limits of these numbers.
	Limits StatsLimits
	// TunnelsRefused counts the TCP connections ([Server.ServeTCP]) that were closed
	// because there were too many, and the requests for tunnels that were refused.
	TunnelsRefused uint64
	// Registered counts the registrations of legs, without refreshes. Refused counts
	// the requests that were refused. Moved counts the changes of a leg's address.
	// Expired counts the legs that have expired.
	Registered, Refused, Moved, Expired uint64
	// Elsewhere counts those of Refused that were refused because another relay may take
	// the session ([Config.Members]).
	Elsewhere uint64
	// OldSecretUses counts the accepted tokens that were made with one of
	// [Config.OldSecrets], or with [Config.NextSecret]. When it no longer grows, and
	// NextSecret is not set, OldSecrets can be removed.
	OldSecretUses uint64
	// Draining says that the server takes no new sessions ([Server.Drain]).
	Draining bool
	// StoreErrors counts the connection IDs that the Store did not take, and the
	// windows that were not moved in time because the Store was too slow.
	StoreErrors uint64
}

// Drops returns the sum of Dropped.
func (s *Stats) Drops() uint64 {
	var n uint64
	for _, d := range s.Dropped {
		n += d
	}
	return n
}

// shardCounters are the counters of one forwarding loop. Each loop has its own, so that no
// two loops write to the same cache line.
type shardCounters struct {
	packets, bytes, lookups, control atomic.Uint64
	dropped                          [numReasons]atomic.Uint64
	_                                [64]byte
}

// serverCounters are the counters that all goroutines of the server share.
type serverCounters struct {
	registered, refused, moved, expired    atomic.Uint64
	storeErrors                            ratelog.Errors
	offloadPackets, offloadBytes, unproven atomic.Uint64
	heldPackets, heldBytes, heldDropped    atomic.Uint64 // after they were held
}

// Stats returns the counters. They are read one after the other while the server runs, so
// they may not fit each other exactly.
func (s *Server) Stats() Stats {
	out := Stats{
		Dropped:     make(map[Reason]uint64, numReasons),
		Registered:  s.counters.registered.Load(),
		Refused:     s.counters.refused.Load(),
		Moved:       s.counters.moved.Load(),
		Expired:     s.counters.expired.Load(),
		StoreErrors: s.counters.storeErrors.Count(),

		Elsewhere:     s.members.sent.Load(),
		OldSecretUses: s.secrets.tokens.oldUses.Load(),
		Draining:      s.members.draining(),

		OffloadedPackets: s.counters.offloadPackets.Load(),
		OffloadedBytes:   s.counters.offloadBytes.Load(),
	}
	out.OffloadErrors = s.offload.errors()
	out.Dropped[DropAmplification] = s.control.amplify.Dropped()
	out.Dropped[DropUnproven] = s.counters.unproven.Load()
	out.Dropped[DropNoPeer] = s.counters.heldDropped.Load()
	out.ForwardedPackets, out.ForwardedBytes = s.counters.heldPackets.Load(), s.counters.heldBytes.Load()
	for _, sh := range s.shards {
		out.add(sh.counters)
		socket := sh.socket.Stats()
		out.ReceiveOverflow += socket.RxOverflow
		out.Dropped[DropSend] += socket.TxErrors
	}
	out.add(&s.tunnels.counters)
	out.Dropped[DropTunnel] += s.tunnels.dropped.Load()
	out.TunnelsRefused = s.tunnels.refused.Count()
	s.addFill(&out)
	return out
}

// add adds the counters of a shard.
func (s *Stats) add(c *shardCounters) {
	s.ForwardedPackets += c.packets.Load()
	s.ForwardedBytes += c.bytes.Load()
	s.Lookups += c.lookups.Load()
	s.ControlPackets += c.control.Load()
	for r := range numReasons {
		s.Dropped[r] += c.dropped[r].Load()
	}
}
