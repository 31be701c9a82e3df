package p2p

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// Stats are counters of a [Conn].
type Stats struct {
	quic.ConnectionStats
	// IDs is the number of connection IDs that this side has issued. quic-go changes
	// the ID every few thousand packets, so that observers cannot link packets by it.
	IDs uint64

	// Attempts is the number of rounds of probes.
	Attempts uint64
	// Fallbacks is the number of direct paths that have died in use.
	Fallbacks uint64
	// Direct and LAN are the numbers of migrations to a path of that kind.
	Direct, LAN uint64
	// TimeToDirect is the time from the end of the handshake to the first direct path,
	// or 0 if there was none.
	TimeToDirect time.Duration
}

// pathCounters are the counters of one connection.
type pathCounters struct {
	attempts, fallbacks, direct, lan atomic.Uint64
	first                            atomic.Int64 // nanoseconds
}

// succeeded counts a migration to an address, after a time.
func (c *pathCounters) succeeded(addr netip.Addr, after time.Duration) {
	c.first.CompareAndSwap(0, int64(after))
	if kindOf(addr) == LAN {
		c.lan.Add(1)
	} else {
		c.direct.Add(1)
	}
}

// Stats returns the counters of the connection.
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

// EndpointStats counts packets that an [Endpoint] has lost.
type EndpointStats struct {
	// Unsorted is the number of received packets that belong to no connection.
	Unsorted uint64
	// Unsent is the number of packets that the system did not send, for example
	// because there was no route.
	Unsent uint64
	// ReceiveOverflow is the number of packets that the system dropped because they
	// were not read in time, or 0 if the system does not count them.
	ReceiveOverflow uint64
}

// Stats returns the counters of the endpoint.
func (e *Endpoint) Stats() EndpointStats {
	out := EndpointStats{Unsorted: e.mux.unsorted.Load(), Unsent: e.mux.refused.Load()}
	for _, s := range e.mux.all() {
		out.ReceiveOverflow += s.Stats().RxOverflow
	}
	return out
}
