package datapath

import (
	"net/netip"
	"time"
)

// MaxFlowID is the length of the longest connection ID that a flow can have, in bytes.
const MaxFlowID = 20

// FlowKey is the two endpoints of a flow. A is the lesser one, compared by address, as 16
// bytes, and then by port.
type FlowKey struct{ A, B netip.AddrPort }

// Flow is the kernel's entry of a flow: all datagrams between two endpoints.
type Flow struct {
	// Born identifies the entry: a later entry of the same endpoints has another value.
	Born uint64
	// Directions are the two directions: from A to B, and from B to A.
	Directions [2]Direction
	// Ignored says that the flow is not QUIC. The kernel reports only packets that look
	// like the beginning of a connection.
	Ignored bool
}

// Tally counts packets by the ECN codepoint of their IP header (RFC 3168 §5), and the bytes of
// their UDP payloads. The counts of packets begin again at 0 after the greatest value.
type Tally struct {
	Packets [4]uint32
	Bytes   uint64
}

// Direction is one direction of a flow.
type Direction struct {
	// Matched counts packets that match the rule. Unreported counts packets that do not
	// match, and that were not reported because the limit of reports was reached or the ring
	// was full.
	Matched, Unreported Tally
	// Last is when the last of these packets passed, to a tick of the kernel.
	Last time.Time
	// Reported is the bytes after the first one of the short header that was reported last.
	// The packets that were not reported since most likely have the ID in it.
	Reported [MaxFlowID]byte
	// Match, ID, IDLen and Segment are as in [Rule].
	Match   Match
	ID      [MaxFlowID]byte
	IDLen   int
	Segment int
	// Whole counts the datagrams with a long header, or the first header of Google QUIC, that
	// were reported whole: at most 8 until FlowRules.WholeAgain. Of later ones only the
	// beginning is reported. The flow's first datagram, which was reported before there was an
	// entry, is not counted.
	Whole uint32
	Spin  Spin
}

// FlowRules says which packets of a flow the kernel only counts.
type FlowRules struct {
	Directions [2]Rule // as in [Flow]
	// Ignored is as in [Flow].
	Ignored bool
	// WholeAgain makes the kernel report long headers whole again.
	WholeAgain bool
}

// Rule says which packets of one direction the kernel only counts. It reports the others.
type Rule struct {
	Match Match
	// ID is the connection ID, for MatchID, and IDLen its length in bytes.
	ID    [MaxFlowID]byte
	IDLen int
	// Segment is the size of the datagrams that GRO puts together, in bytes. 0 means that
	// it is not known.
	Segment int
	// Spin replaces the state of the spin bit. nil leaves the kernel's.
	Spin *Spin
}

// Match says which packets match a rule.
type Match uint8

// The matches.
const (
	// MatchNone matches no packet: all are reported, up to the limit.
	MatchNone Match = iota
	// MatchID matches short headers with the ID of the rule.
	MatchID
	// MatchShort matches everything but long headers.
	MatchShort
)

// Spin is the state of the spin bit of one direction (RFC 9312 §3.8).
type Spin struct {
	// Edge is when the value last changed.
	Edge time.Time
	// Sum is eight times the moving average of the samples. Half is the latest time between
	// an edge of the other direction and the next edge of this direction.
	Sum, Half time.Duration
	// Packets counts the packets with a spin bit, Edges the changes of its value, Samples
	// the round trips, and Rejected the samples that the filters left out.
	Packets, Edges, Samples, Rejected uint32
	// Value is the latest value. It means something only if Started is true.
	Value, Started bool
	// Renewed says that the next packet has another connection ID than the latest one.
	Renewed bool
}

// Sample is a packet that the kernel reports.
type Sample struct {
	// Time is when the packet passed.
	Time time.Time
	// Interface is the index of the interface, and Outbound says that the packet left it.
	Interface int
	Outbound  bool
	// Data is the frame, or the beginning of it. It is valid until the next Read.
	Data []byte
	// Length is the length of the frame, in bytes.
	Length int
	// SegmentSize is the size of the datagrams that GRO or GSO has put together, in bytes.
	// 0 means that it is not known, or that there is one datagram.
	SegmentSize int
}
