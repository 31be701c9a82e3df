package monitor

import (
	"time"

	"github.com/quicway/quicway/internal/decap"
)

// Source is where packets come from: a file ([OpenFile], [NewReader]), or the
// interfaces of this host ([Capture], [Kernel]).
type Source interface {
	// Read waits for the next packet and fills p, all of it. p.Data is valid
	// until the next Read. It returns io.EOF after the last packet, and an
	// error that wraps net.ErrClosed once Close has been called, also while it
	// waits. It is called by one goroutine.
	Read(p *Packet) error
	// Live says whether packets come at their own pace, and are lost if nobody
	// reads them in time.
	Live() bool
	// Dropped counts packets that were lost before Read could see them. It may
	// be called at any time.
	Dropped() uint64
	// Close ends Read. It may be called twice.
	Close() error
}

// Packet is a frame as it was captured.
type Packet struct {
	Time      time.Time // the zero value: not known
	Interface int       // its index, 0 if not known
	Direction Direction
	Link      LinkType
	// Data is what was captured of the frame, from the link layer on.
	Data []byte
	// Length is that of the frame on the wire, in bytes.
	Length int
	// SegmentSize is that of the datagrams' payloads if the system has put
	// several together (GRO, GSO), in bytes, and 0 if not known.
	SegmentSize int
}

// Direction is the way of a packet through this host.
type Direction uint8

// The directions.
const (
	DirectionUnknown Direction = iota
	Inbound
	Outbound
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

// LinkType is what a frame begins with, by its number in
// https://www.tcpdump.org/linktypes.html.
type LinkType uint16

// Link layers that sources of one's own are likely to have. Further ones are
// read: loopback, PPP, PPPoE, HDLC and Linux's cooked ones.
const (
	LinkEthernet = LinkType(decap.LinkEthernet)
	LinkRaw      = LinkType(decap.LinkRaw) // an IPv4 or IPv6 header
)
