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
	// maxRequests may be under way on one connection, and strangersRequests on
	// one that has shown nothing yet: it waits for offers, hears events, and
	// registers.
	maxRequests       = 16
	strangersRequests = 3
	// requestPatience is how long a request may take to arrive.
	requestPatience = 10 * time.Second
	// strangersPatience is how long a connection may show nothing: neither a
	// token nor a leg, nor wait for the offers of its own key.
	strangersPatience = 30 * time.Second
	// maxStrangers bounds the connections that have shown nothing yet. Each may
	// hold 150 kB.
	maxStrangers = 256
	// packetSize is what every path of QUIC carries (RFC 9000 §14). Messages are
	// small, and a path that carries larger ones today may not tomorrow.
	packetSize = 1200
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
		DisablePathMTUDiscovery:        true,
		InitialStreamReceiveWindow:     8 << 10,
		MaxStreamReceiveWindow:         16 << 10,
		InitialConnectionReceiveWindow: 16 << 10,
		MaxConnectionReceiveWindow:     32 << 10,
		MaxIncomingStreams:             maxRequests,
		MaxIncomingUniStreams:          3, // what HTTP/3 needs (RFC 9114 §6.2)
	}
}
