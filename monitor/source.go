package monitor

import (
	"time"

	"github.com/quicway/quicway/internal/decap"
)

// Source delivers packets from a file ([OpenFile], [NewReader]) or from the
// interfaces of this host ([Capture], [Kernel]). Other implementations are
// possible.
type Source interface {
	// Read waits for the next packet and sets all fields of p. p.Data is valid
	// until the next call. Read returns io.EOF after the last packet, and an error
	// that wraps net.ErrClosed once Close has been called, even while it waits.
	// Only one goroutine calls it.
	Read(p *Packet) error
	// Live reports whether packets that are not read in time are lost.
	Live() bool
	// Dropped returns the number of packets that were lost before Read. It may be
	// called at any time.
	Dropped() uint64
	// Close ends Read. It may be called more than once.
	Close() error
}

// Packet is a captured frame.
type Packet struct {
	Time      time.Time // zero: not known
	Interface int       // the interface's index; 0: not known
	Direction Direction
	Link      LinkType
	// Data is the captured part of the frame, beginning with the link layer.
	Data []byte
	// Length is the length of the frame on the wire, in bytes.
	Length int
	// SegmentSize is the length of the payload of each datagram, in bytes, if the
	// system has put several into one packet (GRO, GSO). 0: not known.
	SegmentSize int
}

// Direction says whether this host receives or sends a packet.
type Direction uint8

// The directions.
const (
	DirectionUnknown Direction = iota
	Inbound                    // this host receives it
	Outbound                   // this host sends it
)

// String returns the direction's name.
func (d Direction) String() string {
	switch d {
	case Inbound:
		return "in"
	case Outbound:
		return "out"
	}
	return "unknown"
}

// reverse returns the opposite direction.
func (d Direction) reverse() Direction {
	switch d {
	case Inbound:
		return Outbound
	case Outbound:
		return Inbound
	}
	return d
}

// LinkType is the link layer of a frame, by its number in
// https://www.tcpdump.org/linktypes.html.
type LinkType uint16

// Common link layers. Loopback, PPP, PPPoE, HDLC and Linux cooked captures are
// read as well.
const (
	LinkEthernet = LinkType(decap.LinkEthernet)
	LinkRaw      = LinkType(decap.LinkRaw) // an IPv4 or IPv6 header
)
