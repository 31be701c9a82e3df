// Package capture reads the packets that cross this host's interfaces, as
// tcpdump does (Linux, AF_PACKET). Elsewhere it returns ErrNotSupported.
package capture

import (
	"errors"
	"time"

	"github.com/quicway/quicway/internal/decap"
)

// ErrNotSupported: the system has no AF_PACKET.
var ErrNotSupported = errors.New("AF_PACKET is Linux's")

// Frame is a packet.
type Frame struct {
	Time        time.Time
	Interface   int
	Outgoing    bool
	Incoming    bool // to this host; neither: it is forwarded, or somebody else's
	Link        decap.LinkType
	Data        []byte
	Length      int
	SegmentSize int // of what GRO or GSO has put together; 0: not known, or single
}
