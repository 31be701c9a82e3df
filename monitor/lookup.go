package monitor

import (
	"cmp"

	"github.com/quicway/quicway/internal/wire"
)

// rolesOfLong guesses which endpoint is the client's from a long header: 0-RTT
// and tokens come from the client, Retry from the server. Else the server is the
// endpoint at which one has answered before, or the one with the smaller port.
func (x *index) rolesOfLong(a *arrival, h *wire.Header) (client, server endpoint) {
	src, dst := a.datagram.Src, a.datagram.Dst
	switch {
	case h.Type == wire.Retry:
		return dst, src
	case h.Type == wire.ZeroRTT || len(h.Token) > 0:
		return src, dst
	case x.destinations.peek(src) != nil:
		return dst, src
	case x.destinations.peek(dst) != nil || dst.Port <= src.Port:
		return src, dst
	}
	return dst, src
}

// rolesOf guesses which endpoint of a flow is the client's: the server is the
// endpoint at which one has answered before, or else the one that guessServer says,
// or the one that got the first datagram. known is false if none has answered before. by says what shows it.
func (x *index) rolesOf(key tuple, s *candidate) (client, server endpoint, known bool, by string) {
	a, b := key.a, key.b
	switch {
	case x.knownAlone(s):
	case x.destinations.peek(b) != nil:
		return a, b, true, byAnswer
	case x.destinations.peek(a) != nil:
		return b, a, true, byAnswer
	case x.sources.peek(sourceKey{client: a}) != nil:
		return a, b, true, byAnswer
	case x.sources.peek(sourceKey{client: b}) != nil:
		return b, a, true, byAnswer
	}
	serverIsA, by := s.guessServer(key)
	if serverIsA || by == "" && !s.fromA {
		a, b = b, a
	}
	return a, b, false, cmp.Or(by, byChance)
}

// What shows which endpoint of a flow is the server's.
const (
	byAnswer = "one of both was in a handshake"
	byPort   = "the server is taken from the ports"
	byIDs    = "the server is taken from the connection IDs"
	bySize   = "the server is guessed from the sizes of the datagrams"
	byChance = "the server is a guess: it got the first datagram"
)

// firstEphemeral is the first port that Linux takes for clients. Other systems begin at 49152 (RFC 6335 §6).
const firstEphemeral = 32768

// guessServer guesses from ports, connection IDs and sizes whether the server is key.a. by says from what, and is
// empty if these say nothing. Only clients can do without an ID, and most servers send more than they get.
func (s *candidate) guessServer(key tuple) (isA bool, by string) {
	if isA, ok := isService(key, func(port uint16) bool { return port == 443 }); ok {
		return isA, byPort
	}
	if isA, ok := isService(key, func(port uint16) bool { return port < 1024 }); ok {
		return isA, byPort
	}
	toB, toA := &s.directions[0], &s.directions[1]
	if toA.packets >= 2 && toB.packets >= 2 && toA.hasID() != toB.hasID() {
		return toA.hasID(), byIDs
	}
	if isA, ok := isService(key, func(port uint16) bool { return port < firstEphemeral }); ok {
		return isA, byPort
	}
	if x, y := toB.meanSize(), toA.meanSize(); x >= muchMore*y || y >= muchMore*x {
		return x > y, bySize
	}
	return false, ""
}

// isService reports whether key.a alone has a port of services. ok is false if both have one, or neither.
func isService(key tuple, of func(port uint16) bool) (isA, ok bool) {
	a, b := of(key.a.Port), of(key.b.Port)
	return a, a != b
}

// muchMore is how much larger the datagrams of a server are on average than those of its client.
const muchMore = 4

// meanSize returns the average size of the datagrams.
func (d *candidateDirection) meanSize() uint64 { return d.bytes / max(d.packets, 1) }

// hasID reports whether all packets of a direction begin with the same connection ID.
func (d *candidateDirection) hasID() bool { return d.common >= minLookup }

// ownerByShort finds the connection whose ID a short header has, and the ID. It
// makes one look-up for each length of ID that is known at the endpoint that the
// datagram goes to, or comes from. If neither endpoint is known a server may have
// moved: then it tries all lengths that were ever seen, from eight bytes on. alone reports whether
// it is certain that neither is known.
func (x *index) ownerByShort(a *arrival, alone bool) (owner, ID) {
	if !alone {
		if e := x.destinations.peek(a.datagram.Dst); e != nil {
			if o, id := x.ids.find(a, wire.Server, e.value.lengths[wire.Server]>>minLookup<<minLookup); id.len > 0 {
				return o, id
			}
		}
		if e := x.destinations.peek(a.datagram.Src); e != nil {
			return x.ids.find(a, wire.Client, e.value.lengths[wire.Client]>>minLookup<<minLookup)
		}
	}
	if a.payload[0]&fixedBit == 0 {
		return owner{}, ID{}
	}
	if o, id := x.ids.find(a, wire.Server, x.ids.lengths[wire.Server]>>8<<8); id.len > 0 {
		return o, id
	}
	return x.ids.find(a, wire.Client, x.ids.lengths[wire.Client]>>8<<8)
}

// ownerByLong finds the connection that continues its handshake from another
// address: the long header has IDs of both of its sides.
func (x *index) ownerByLong(a *arrival) (owner, ID) {
	dst, src, err := wire.IDs(a.payload)
	if err != nil || len(dst) < minLookup || len(dst) > wire.MaxIDLen || x.ids.starts[startOf(dst)] == 0 {
		return owner{}, ID{}
	}
	id := idOf(dst)
	e := x.ids.peek(id)
	if e == nil {
		return owner{}, ID{}
	}
	for _, to := range [...]wire.Side{wire.Server, wire.Client} {
		o, ok := e.value.best(a, to)
		if !ok || len(src) > 0 && !o.conn.knows(1-to, src) {
			continue
		}
		if _, server := clientAndServer(a.datagram, to); o.conn.hasServer(server) {
			return o, id
		}
	}
	return owner{}, ID{}
}

// changes counts the changes of the tables that lead from addresses to connections.
func (x *index) changes() uint64 { return 1 + x.destinations.changes + x.sources.changes }

// alone reports whether none of these tables leads from a candidate's endpoints to a connection. It
// looks them up again only if there were changes, and not for each packet of a flow that is not QUIC.
func (x *index) alone(e *entry[tuple, candidate]) bool {
	s := &e.value
	if now := x.changes(); s.checkedAt != now {
		s.checkedAt, s.alone = now, !x.leadsFrom(e.key.a, e.key.b) && !x.leadsFrom(e.key.b, e.key.a)
	}
	return s.alone
}

// leadsFrom reports whether there is an entry for a client, or for its host and a server or its host, or
// for a server with the client's endpoint.
func (x *index) leadsFrom(client, server endpoint) bool {
	return x.destinations.peek(client) != nil || x.sources.peek(sourceKey{client: client}) != nil ||
		x.sources.peek(sourceKey{anyPort(client), server}) != nil || x.sources.hostsHaveConnection(client, server)
}

// knownAlone reports whether a candidate was found to be alone, and there were no changes since.
func (x *index) knownAlone(s *candidate) bool { return s.alone && s.checkedAt == x.changes() }
