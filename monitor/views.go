package monitor

import (
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/quicway/quicway/internal/wire"
)

// The views show the tables that lead from datagrams to connections: the five of
// LinkQUIC. Each view is a copy. The entry seen last comes first.

// Flow is the traffic between two endpoints.
type Flow struct {
	A, B netip.AddrPort
	// Connections has the numbers of the connections between A and B, mostly one.
	Connections []uint64
	// Last is the time of the latest packet, up to a quarter of a second early.
	Last time.Time
}

// Flows returns the flows that lead from two endpoints to connections.
func (t *Tracker) Flows() iter.Seq[Flow] {
	return view(t, &t.index.flows, func(e *entry[tuple, flow]) Flow {
		out := Flow{A: e.key.a.AddrPort(), B: e.key.b.AddrPort(), Last: timeOf(e.seen)}
		for _, p := range e.value.paths {
			out.Connections = append(out.Connections, p.conn.number)
		}
		return out
	})
}

// KnownID is a connection ID that belongs to connections.
type KnownID struct {
	ID ID
	// Connections has the numbers of the connections that packets with this
	// destination ID belong to: several if a connection was captured at two places
	// or has the ID of another one.
	Connections []uint64
	// ToServer reports whether the packets go to the server of the first
	// connection.
	ToServer bool
}

// IDs returns the connection IDs that lead to connections.
func (t *Tracker) IDs() iter.Seq[KnownID] {
	return view(t, &t.index.ids.table, func(e *entry[ID, owners]) KnownID {
		out := KnownID{ID: e.key}
		for i, o := range e.value.list {
			out.Connections = append(out.Connections, o.conn.number)
			out.ToServer = out.ToServer || i == 0 && o.side == wire.Server
		}
		return out
	})
}

// Destination is an endpoint at which a server answers.
type Destination struct {
	Server netip.AddrPort
	// Connections counts the connections that began here.
	Connections uint64
	// ServerIDLengths and ClientIDLengths are the lengths, in bytes, of the
	// connection IDs that were seen here. A short header between unknown endpoints
	// is looked up once for each.
	ServerIDLengths, ClientIDLengths []int
}

// Destinations returns the endpoints at which servers answer.
func (t *Tracker) Destinations() iter.Seq[Destination] {
	return view(t, &t.index.destinations, func(e *entry[endpoint, destination]) Destination {
		return Destination{
			Server:          e.key.AddrPort(),
			Connections:     e.value.connections,
			ServerIDLengths: lengthsOf(e.value.lengths[wire.Server]),
			ClientIDLengths: lengthsOf(e.value.lengths[wire.Client]),
		}
	})
}

// lengthsOf returns the numbers of the bits that are set.
func lengthsOf(mask uint32) (out []int) {
	for n := 0; mask>>n != 0; n++ {
		if mask>>n&1 != 0 {
			out = append(out, n)
		}
	}
	return out
}

// SourceEntry is a client and a server that have connections. Each connection is
// in four entries.
type SourceEntry struct {
	// Client is an endpoint, an address with port 0 for any port, or the zero
	// value for any client.
	Client netip.AddrPort
	// Server is an endpoint, an address with port 0 for any port, or the zero
	// value for any server.
	Server netip.AddrPort
	// Connections has the numbers of the latest connections, at most 512.
	Connections []uint64
}

// Sources returns the clients and servers that lead to connections.
func (t *Tracker) Sources() iter.Seq[SourceEntry] {
	return view(t, &t.index.sources.table, func(e *entry[sourceKey, sourceConns]) SourceEntry {
		var out SourceEntry
		if e.key.client != (endpoint{}) {
			out.Client = e.key.client.AddrPort()
		}
		if e.key.server != (endpoint{}) {
			out.Server = e.key.server.AddrPort()
		}
		for _, c := range e.value.list {
			out.Connections = append(out.Connections, c.number)
		}
		return out
	})
}

// PotentialFlow is the traffic between two endpoints that may be QUIC.
type PotentialFlow struct {
	A, B netip.AddrPort
	// Disproved reports whether there was a datagram that is not QUIC.
	Disproved   bool
	FromA       Traffic
	FromB       Traffic
	First, Last time.Time
}

// Potential returns the flows that may be QUIC but belong to no connection.
func (t *Tracker) Potential() iter.Seq[PotentialFlow] {
	return view(t, &t.index.potential.table, func(e *entry[tuple, candidate]) PotentialFlow {
		s := &e.value
		return PotentialFlow{
			A: e.key.a.AddrPort(), B: e.key.b.AddrPort(), Disproved: s.disproved,
			FromA: s.directions[0].traffic(),
			FromB: s.directions[1].traffic(),
			First: timeOf(s.first), Last: timeOf(s.last),
		}
	})
}

// view returns a copy of a table.
func view[K comparable, V, T any](t *Tracker, table *table[K, V], show func(*entry[K, V]) T) iter.Seq[T] {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]T, 0, table.len())
	for e := range table.all() {
		out = append(out, show(e))
	}
	return slices.Values(out)
}
