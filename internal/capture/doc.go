// Package capture captures the packets on this host's interfaces with AF_PACKET sockets
// (Linux), as tcpdump does.
package capture

import (
	"errors"
	"time"

	"github.com/quicway/quicway/internal/decap"
)

// ErrNotSupported is returned by [Open] on systems without AF_PACKET.
var ErrNotSupported = errors.New("capture needs Linux")

// Frame is a captured packet.
type Frame struct {
	Time        time.Time
	Interface   int  // index
	Outgoing    bool // sent by this host
	Incoming    bool // received for this host; neither: for another host
	Link        decap.LinkType
	Data        []byte
	Length      int // on the wire, in bytes
	SegmentSize int // of the datagrams that GRO or GSO has put together; 0: not known, or a single one
}
