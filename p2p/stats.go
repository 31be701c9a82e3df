package p2p

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// Stats counts what has happened on a [Conn].
type Stats struct {
	quic.ConnectionStats
	// IDs is how many connection IDs this side has made. QUIC turns to
	// another every few thousand packets, so that nobody on the way can
	// follow a connection by them.
	IDs uint64

	// Attempts counts the rounds of probes for a direct path, Fallbacks how
	// often one has died under the connection.
	Attempts, Fallbacks uint64
	// Direct and LAN count how often the connection has moved to a path of
	// that kind. TimeToDirect is how long the first time took from the end of
	// the handshake, or 0.
	Direct, LAN  uint64
	TimeToDirect time.Duration
}

// pathCounters are those of one connection.
type pathCounters struct {
	attempts, fallbacks, direct, lan atomic.Uint64
	first                            atomic.Int64 // nanoseconds
}

// succeeded counts a move to an address.
func (c *pathCounters) succeeded(addr netip.Addr, after time.Duration) {
	c.first.CompareAndSwap(0, int64(after))
	if kindOf(addr) == LAN {
		c.lan.Add(1)
	} else {
		c.direct.Add(1)
	}
}

// Stats returns the counters.
func (c *Conn) Stats() Stats {
	n := &c.counters
	return Stats{
		ConnectionStats: c.ConnectionStats(),
		IDs:             c.link.ids.Next(),
		Attempts:        n.attempts.Load(),
		Fallbacks:       n.fallbacks.Load(),
		Direct:          n.direct.Load(),
		LAN:             n.lan.Load(),
		TimeToDirect:    time.Duration(n.first.Load()),
	}
}

// EndpointStats counts packets that got nowhere.
type EndpointStats struct {
	// Unsorted came for no connection of the endpoint.
	Unsorted uint64
	// Unsent were refused by the system, for lack of a route perhaps.
	Unsent uint64
	// ReceiveOverflow were dropped by the system because they were not read
	// in time, where it tells.
	ReceiveOverflow uint64
}

// Stats returns the counters.
func (e *Endpoint) Stats() EndpointStats {
	out := EndpointStats{Unsorted: e.mux.unsorted.Load(), Unsent: e.mux.refused.Load()}
	for _, s := range e.mux.all() {
		out.ReceiveOverflow += s.Stats().RxOverflow
	}
	return out
}
