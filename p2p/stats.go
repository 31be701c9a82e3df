package p2p

import "github.com/quic-go/quic-go"

// Stats counts what has happened on a [Conn].
type Stats struct {
	quic.ConnectionStats
	// IDs is how many connection IDs this side has made. QUIC turns to
	// another every few thousand packets, so that nobody on the way can
	// follow a connection by them.
	IDs uint64
}

// Stats returns the counters.
func (c *Conn) Stats() Stats {
	return Stats{ConnectionStats: c.ConnectionStats(), IDs: c.link.ids.Next()}
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
	for _, s := range e.mux.sockets {
		out.ReceiveOverflow += s.Stats().RxOverflow
	}
	return out
}
