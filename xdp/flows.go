package xdp

import (
	"fmt"
	"net/netip"
	"time"
)

// DefaultFlows is a number for [Config.Flows] that goes with the default of
// package monitor.
const DefaultFlows = 131072

// maxFlows keeps the table of flows, which is made in advance, within reason.
const maxFlows = 1 << 26

// MaxFlowID bounds the connection IDs that flows are known by, in bytes.
const MaxFlowID = 20

// FlowKey is the endpoints of a flow, the lesser first: by address, as 16 bytes,
// and then by port.
type FlowKey struct{ A, B netip.AddrPort }

// Flow is what the kernel keeps of the packets between two endpoints.
type Flow struct {
	// Born tells a flow from another one of the same endpoints.
	Born uint64
	// Lanes are the two directions: from A to B, and back.
	Lanes [2]Lane
	// RuledOut says that it is none of QUIC's: Go is only told of what begins
	// like a handshake.
	RuledOut bool
}

// Tally counts packets, and the bytes of their UDP payloads.
type Tally struct{ Packets, Bytes uint64 }

// Lane is one direction of a flow.
type Lane struct {
	// Known counts the packets that are as Go has said, and Held those that
	// Go should see, had it not been told of too much already. Last is when the
	// latest of them passed, give or take a tick of the kernel.
	Known, Held Tally
	Last        time.Time
	// Told is what follows the first byte of the latest short header that Go was
	// told of: an ID, most likely that of the packets held since.
	Told [MaxFlowID]byte
	// Taught says what Go need not see, by ID if that is [ByID].
	Taught Taught
	ID     [MaxFlowID]byte
	IDLen  int
	// Segment is the size of the datagrams that longer packets are made of
	// (GRO), 0 if that is not known.
	Segment int
	// Whole counts the datagrams with a long header that Go was given whole. From
	// eight on it gets their beginning only.
	Whole uint32
	Spin  Spin
}

// Lesson is what Go has to say of a flow.
type Lesson struct {
	Lanes [2]LaneLesson // as those of [Flow]
	// RuledOut is as that of [Flow]. More makes the kernel show long headers
	// whole again.
	RuledOut, More bool
}

// LaneLesson is what Go has to say of a lane. The fields are as those of [Lane].
type LaneLesson struct {
	Taught  Taught
	ID      [MaxFlowID]byte
	IDLen   int
	Segment int
	Spin    *Spin // nil: the kernel's own
}

// Taught is what Go has said of a lane.
type Taught uint8

// What can be said.
const (
	// Untaught: Go has to see all packets, as far as it can.
	Untaught Taught = iota
	// ByID: short headers with the lane's ID need no look.
	ByID
	// AnyShort: nothing does that has no long header.
	AnyShort
)

// Spin is the state of the spin bit of a lane (RFC 9312 §3.8).
type Spin struct {
	// Edge is when the value last changed.
	Edge time.Time
	// Sum is eight times the average of the samples, Half the latest time since
	// the edge came the other way.
	Sum, Half time.Duration
	// Packets counts those that had the bit, Edges its changes, Samples the
	// round trips between these, and Rejected those that cannot be one.
	Packets, Edges, Samples, Rejected uint32
	// Value is the latest, if Started says that there was any.
	Value, Started bool
}

// Sample is a packet that Go has to look at.
type Sample struct {
	// Time is when it passed, Interface the index of the one that it passed by,
	// and Outbound says that it left.
	Time      time.Time
	Interface int
	Outbound  bool
	// Data is the beginning of the frame, or all of it; it is valid until the
	// next Read. Length is that of the frame, in bytes.
	Data   []byte
	Length int
	// SegmentSize is the size of the datagrams that the packet is made of, in
	// bytes, 0 if that is not known.
	SegmentSize int
}

// Sight says what the monitor stage has done with a packet that is not as its flow
// was taught: those are counted there alone.
type Sight uint8

// The sights.
const (
	// SightTold: Go got a [Sample].
	SightTold Sight = iota
	// SightHeld: counted in its flow, because Go was told of enough packets
	// of that.
	SightHeld
	// SightLost: counted in its flow, because there was no room for a Sample.
	SightLost
	// SightStrange: of a flow that is ruled out.
	SightStrange
	// SightSkipped: neither looked at nor counted. It is a fragment, in a tunnel,
	// or its headers are none that are read, and there were others just before.
	SightSkipped
	// FlowsNew counts flows that were made.
	FlowsNew
	// FlowsFull counts packets that were skipped because no flow could be made.
	FlowsFull

	numSights
)

var sightNames = [numSights]string{
	"told", "held", "lost", "strange", "skipped", "flows_new", "flows_full",
}

// String returns a name fit for a metric's label.
func (s Sight) String() string {
	if s < numSights {
		return sightNames[s]
	}
	return fmt.Sprintf("sight %d", uint8(s))
}
