package monitor

import "github.com/quicway/quicway/internal/wire"

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
// endpoint at which one has answered before, or else the one with the port of a service,
// the one whose packets alone have a connection ID, since only clients can do without,
// or the one that got the first datagram. known is false if none has answered before.
func (x *index) rolesOf(key tuple, s *candidate) (client, server endpoint, known bool) {
	a, b := key.a, key.b
	switch {
	case x.knownAlone(s):
	case x.destinations.peek(b) != nil:
		return a, b, true
	case x.destinations.peek(a) != nil:
		return b, a, true
	case x.sources.peek(sourceKey{client: a}) != nil:
		return a, b, true
	case x.sources.peek(sourceKey{client: b}) != nil:
		return b, a, true
	}
	if serverIsA, ok := s.guessServer(key); ok && serverIsA || !ok && !s.fromA {
		return b, a, false
	}
	return a, b, false
}

// guessServer guesses from ports and connection IDs whether the server is key.a. ok is false
// if these say nothing.
func (s *candidate) guessServer(key tuple) (isA, ok bool) {
	for _, isService := range []func(port uint16) bool{
		func(port uint16) bool { return port == 443 },
		func(port uint16) bool { return port < 1024 },
	} {
		if a, b := isService(key.a.Port), isService(key.b.Port); a != b {
			return a, true
		}
	}
	toB, toA := s.directions[0].hasID(), s.directions[1].hasID()
	if s.directions[0].packets < 2 || s.directions[1].packets < 2 || toA == toB {
		return false, false
	}
	return toA, true
}

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
