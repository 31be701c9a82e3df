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
	// retryFrom is how many unfinished handshakes make the relay ask
	// strangers to prove their addresses first (RFC 9000 §8.1.2).
	retryFrom      = 256
	maxHeaderBytes = 8 << 10
	// packetSize is what every path of QUIC carries (RFC 9000 §14). Messages are
	// small, and a path that carries larger ones today may not tomorrow.
	packetSize = 1200
)

// controlConfig is the QUIC configuration of control connections. Their
// peers keep them alive, because it is the peers' NATs that forget.
func controlConfig() *quic.Config {
	return &quic.Config{
		MaxIdleTimeout:                 time.Minute,
		HandshakeIdleTimeout:           5 * time.Second,
		InitialPacketSize:              packetSize,
		DisablePathMTUDiscovery:        true,
		InitialStreamReceiveWindow:     16 << 10,
		MaxStreamReceiveWindow:         64 << 10,
		InitialConnectionReceiveWindow: 64 << 10,
		MaxConnectionReceiveWindow:     256 << 10,
		MaxIncomingStreams:             64,
		MaxIncomingUniStreams:          8,
	}
}
