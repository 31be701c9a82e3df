package relay

import (
	"time"

	"github.com/quic-go/quic-go"
)

// Bounds of the control connections, which carry a few small messages each.
const (
	// spareConnections may exist besides two for each session: peers that
	// connect anew before the old connection is known to be dead, and those
	// that wait for offers.
	spareConnections = 4096
	maxHeaderBytes   = 8 << 10
	// packetSize fits the smallest MTU of IPv6, 1280 bytes (RFC 8200 §5).
	packetSize = 1280 - 48
	// noTokens makes those of NEW_TOKEN frames (RFC 9000 §8.1.3) good for nothing:
	// whoever has had an address once may show one as often as it likes. Those
	// of a Retry are good for ten seconds, twice HandshakeIdleTimeout.
	noTokens = -100 * 365 * 24 * time.Hour
)

// controlConfig is the QUIC configuration of control connections. Their
// peers keep them alive, because it is the peers' NATs that forget.
func controlConfig() *quic.Config {
	return &quic.Config{
		MaxIdleTimeout:                 time.Minute,
		HandshakeIdleTimeout:           5 * time.Second,
		InitialPacketSize:              packetSize,
		InitialStreamReceiveWindow:     16 << 10,
		MaxStreamReceiveWindow:         64 << 10,
		InitialConnectionReceiveWindow: 64 << 10,
		MaxConnectionReceiveWindow:     256 << 10,
		MaxIncomingStreams:             64,
		MaxIncomingUniStreams:          8,
	}
}
