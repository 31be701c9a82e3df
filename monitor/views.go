package monitor

import (
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/quicway/quicway/internal/wire"
)

// The views show the tables that datagrams are sorted by: the five of LinkQUIC
// and what has come to them. Each is a copy of the moment, the latest first.

// Flow is an entry of the connections view: what is between two endpoints.
type Flow struct {
	A, B netip.AddrPort
	// Connections has the numbers of those that use the pair, mostly one.
	Connections []uint64
	Last        time.Time // to a quarter of a second
}

// Flows is the connections view: endpoints → connections.
func (t *Tracker) Flows() iter.Seq[Flow] {
	return view(t, &t.flows, func(e *entry[tuple, *flow]) Flow {
		out := Flow{A: e.key.a.AddrPort(), B: e.key.b.AddrPort(), Last: time.Unix(0, e.seen).UTC()}
		for _, p := range e.value.paths {
			out.Connections = append(out.Connections, p.record.number)
		}
		return out
	})
}

// KnownID is an entry of the DCIDs view.
type KnownID struct {
	ID ID
	// Connections has the numbers of those that packets with the ID belong to:
	// several if one was captured at two places, or claims another's.
	Connections []uint64
	// ToServer says that the packets go to the server of the first of them.
	ToServer bool
}

// IDs is the DCIDs view: ID → connections.
func (t *Tracker) IDs() iter.Seq[KnownID] {
	return view(t, &t.ids, func(e *entry[ID, *owners]) KnownID {
		out := KnownID{ID: e.key}
		for i, o := range e.value.list {
			out.Connections = append(out.Connections, o.record.number)
			out.ToServer = out.ToServer || i == 0 && o.side == wire.Server
		}
		return out
	})
}

// Destination is an entry of the destinations view: where a server answers.
type Destination struct {
	Server netip.AddrPort
	// Connections counts those that began here.
	Connections uint64
	// ServerIDLengths and ClientIDLengths are the lengths of IDs that were seen
	// here: a short header from elsewhere is looked up once for each.
	ServerIDLengths, ClientIDLengths []int
}

// Destinations is the destinations view: endpoint → what is known of its IDs.
func (t *Tracker) Destinations() iter.Seq[Destination] {
	return view(t, &t.destinations, func(e *entry[endpoint, *destination]) Destination {
		return Destination{
			Server:          e.key.AddrPort(),
			Connections:     e.value.connections,
			ServerIDLengths: lengthsOf(e.value.lengths[wire.Server]),
			ClientIDLengths: lengthsOf(e.value.lengths[wire.Client]),
		}
	})
}

func lengthsOf(mask uint32) (out []int) {
	for n := 0; mask>>n != 0; n++ {
		if mask>>n&1 != 0 {
			out = append(out, n)
		}
	}
	return out
}

// Talker is an entry of the sources view: who talks to whom.
type Talker struct {
	// Client is an address with any port (0), an endpoint, or not valid: any
	// client.
	Client netip.AddrPort
	// Server is an endpoint, an address with any port (0), or not valid: any
	// server.
	Server netip.AddrPort
	// Connections has the numbers of the latest.
	Connections []uint64
}

// Sources is the sources view: source and destination → connections.
func (t *Tracker) Sources() iter.Seq[Talker] {
	return view(t, &t.sources, func(e *entry[sourceKey, *talkers]) Talker {
		var out Talker
		if e.key.client != (endpoint{}) {
			out.Client = e.key.client.AddrPort()
		}
		if e.key.server != (endpoint{}) {
			out.Server = e.key.server.AddrPort()
		}
		for _, r := range e.value.records {
			out.Connections = append(out.Connections, r.number)
		}
		return out
	})
}

// Suspect is an entry of the potential view: what may be QUIC.
type Suspect struct {
	A, B netip.AddrPort
	// Disproved says that something came that QUIC does not send.
	Disproved   bool
	FromA       Traffic
	FromB       Traffic
	First, Last time.Time
}

// Potential is the potential view: endpoints whose datagrams may be QUIC.
func (t *Tracker) Potential() iter.Seq[Suspect] {
	return view(t, &t.potential, func(e *entry[tuple, *suspect]) Suspect {
		s := e.value
		return Suspect{
			A: e.key.a.AddrPort(), B: e.key.b.AddrPort(), Disproved: s.disproved,
			FromA: Traffic{s.ways[0].packets, s.ways[0].bytes},
			FromB: Traffic{s.ways[1].packets, s.ways[1].bytes},
			First: time.Unix(0, s.first).UTC(), Last: time.Unix(0, s.last).UTC(),
		}
	})
}

// view copies a table.
func view[K comparable, V, T any](t *Tracker, table *table[K, V], show func(*entry[K, V]) T) iter.Seq[T] {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]T, 0, table.len())
	for e := range table.all() {
		out = append(out, show(e))
	}
	return slices.Values(out)
}
