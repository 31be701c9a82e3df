package relay

import (
	"fmt"
	"sync/atomic"
)

// Reason says why a packet was dropped.
type Reason uint8

// The reasons.
const (
	// DropShort: too short to hold the header that it begins.
	DropShort Reason = iota
	// DropUnknownID: a short header whose ID belongs to no leg.
	DropUnknownID
	// DropWrongSource: an ID of a leg, but not from the other leg's address.
	DropWrongSource
	// DropNoPeer: from a leg whose peer has not registered yet, or is gone.
	DropNoPeer
	// DropHopLimit: it has made all the hops that it may (RFC 1812 §5.3.1).
	DropHopLimit
	// DropRelayed: a long header of a relay's own QUIC, or a Version
	// Negotiation, with an ID of a leg. It is not forwarded, so that nobody
	// shakes hands with a relay at an address that is not theirs.
	DropRelayed
	// DropUnproven: of the relay's own QUIC, with bit 7 of the ID clear, to an
	// address that has not made a handshake. It is not sent, lest another
	// relay forwards it.
	DropUnproven
	// DropControlQueue: for the relay itself, which could not keep up.
	DropControlQueue
	// DropSend: the system refused to send it.
	DropSend
	// DropAmplification: of the relay itself, to an address that has not been
	// validated, and has not sent a third as much (RFC 9000 §8.1, §8.2.1).
	DropAmplification

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
}

// String returns a name fit for a metric's label.
func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Stats counts since the server was made.
type Stats struct {
	// ForwardedPackets and ForwardedBytes count UDP payloads that went from
	// one leg to the other.
	ForwardedPackets, ForwardedBytes uint64
	// Lookups counts the routes that had to be found for them: one for each
	// run of packets.
	Lookups uint64
	// OffloadedPackets and OffloadedBytes count what the kernel has forwarded
	// itself, which is not in the above, as of the last second.
	// OffloadErrors counts what it did not take ([Config.XDP]).
	OffloadedPackets, OffloadedBytes, OffloadErrors uint64
	// ControlPackets counts those for the relay itself.
	ControlPackets uint64
	// Dropped counts packets by reason. It has all reasons.
	Dropped map[Reason]uint64
	// ReceiveOverflow counts packets that the system dropped because the
	// server did not read them in time, where the system tells.
	ReceiveOverflow uint64

	// Sessions and Legs are those that exist now, Offers those that wait.
	Sessions, Legs, Offers int
	// Registered counts legs that came, Refused requests that were denied,
	// Moved changes of a leg's address, Expired legs that fell silent.
	Registered, Refused, Moved, Expired uint64
	// StoreErrors counts IDs that the Store did not take, and windows that
	// were not moved on in time because it did not keep up.
	StoreErrors uint64
}

// Drops sums Dropped.
func (s *Stats) Drops() uint64 {
	var n uint64
	for _, d := range s.Dropped {
		n += d
	}
	return n
}

// shardCounters belong to one forwarding loop, so that no two write to one
// cache line.
type shardCounters struct {
	packets, bytes, lookups, control atomic.Uint64
	dropped                          [numReasons]atomic.Uint64
	_                                [64]byte
}

// serverCounters count what happens to sessions.
type serverCounters struct {
	registered, refused, moved, expired, storeErrors atomic.Uint64
	offloadPackets, offloadBytes, unproven           atomic.Uint64
}

// Stats returns the counters. They are read one by one, while packets flow.
func (s *Server) Stats() Stats {
	out := Stats{
		Dropped:     make(map[Reason]uint64, numReasons),
		Registered:  s.counters.registered.Load(),
		Refused:     s.counters.refused.Load(),
		Moved:       s.counters.moved.Load(),
		Expired:     s.counters.expired.Load(),
		StoreErrors: s.counters.storeErrors.Load(),
		Offers:      s.mailbox.len(),

		OffloadedPackets: s.counters.offloadPackets.Load(),
		OffloadedBytes:   s.counters.offloadBytes.Load(),
	}
	out.OffloadErrors = s.offload.errors()
	out.Dropped[DropAmplification] = s.control.amplify.Dropped()
	out.Sessions, out.Legs = s.sessions.count()
	out.Dropped[DropUnproven] = s.counters.unproven.Load()
	for _, sh := range s.shards {
		c := &sh.counters
		out.ForwardedPackets += c.packets.Load()
		out.ForwardedBytes += c.bytes.Load()
		out.Lookups += c.lookups.Load()
		out.ControlPackets += c.control.Load()
		for r := range numReasons {
			out.Dropped[r] += c.dropped[r].Load()
		}
		socket := sh.socket.Stats()
		out.ReceiveOverflow += socket.RxOverflow
		out.Dropped[DropSend] += socket.TxErrors
	}
	return out
}
