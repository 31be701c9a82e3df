package monitor

import (
	"encoding/binary"
	"math/bits"
	"strconv"

	"github.com/quicway/quicway/internal/decap"
	"github.com/quicway/quicway/internal/wire"
)

// suspect is a pair of endpoints whose datagrams may be QUIC: short headers
// with nothing before them, or a long header of an unknown version.
type suspect struct {
	first, last int64
	fromA       bool          // the first datagram goes from a to b
	disproved   bool          // something that QUIC does not send
	ways        [2]suspectWay // 0: from a to b
	latest      int           // the way of the latest datagram
	latestLen   int

	// Of a long header of an unknown version.
	asked    bool
	version  wire.Version
	dst, src ID
}

// suspectWay is one direction. All its packets begin with the same bytes, up to
// the length of its connection IDs, and go on with unlike ones.
type suspectWay struct {
	packets, bytes uint64
	firstLen       int
	prefix         [wire.MaxIDLen + 4]byte // after the first byte of the first packet
	common         uint8                   // of it, in all packets
	low            uint32                  // the low bits of first bytes that were seen, a bit each
}

// add takes a packet.
func (w *suspectWay) add(a *arrival) {
	rest := a.payload[1:]
	if w.packets == 0 {
		w.firstLen = a.length
		w.common = uint8(copy(w.prefix[:], rest))
	}
	n := uint8(0)
	for n < w.common && int(n) < len(rest) && rest[n] == w.prefix[n] {
		n++
	}
	w.common = n
	w.low |= 1 << (a.payload[0] & 0x1f)
	w.packets++
	w.bytes += uint64(a.length)
}

// protected says whether the packets look as protected ones with an ID do: the
// same ID in all, another first byte, and nothing constant behind the ID.
func (w *suspectWay) protected() bool {
	return w.packets >= 2 && w.common >= minLookup && w.common <= wire.MaxIDLen && w.low&(w.low-1) != 0
}

// How much it takes to take packets for QUIC by their looks alone.
const (
	looksPackets = 8 // that have the same ID
	looksLow     = 5 // values of the first byte's protected bits, of 32
	looksID      = 3 // unlike bytes in the ID
)

// looks says whether the packets cannot well be anything but QUIC: many, all
// with the fixed bit, a random ID that stays, and random bits before and after
// it (RFC 9001 §5.4).
func (w *suspectWay) looks() bool {
	unlike := [256]bool{}
	n := 0
	for _, b := range w.prefix[:w.common] {
		if !unlike[b] {
			unlike[b] = true
			n++
		}
	}
	return w.protected() && w.packets >= looksPackets && bits.OnesCount32(w.low) >= looksLow &&
		n >= looksID && !unlike[0]
}

// suspectLong notes a long header of an unknown version, which may be answered
// by a Version Negotiation.
func (t *Tracker) suspectLong(a *arrival) {
	if a.length < minUnknown {
		t.disprove(a)
		return
	}
	h, err := wire.NoDialect.Parse(a.payload)
	if err != nil || len(h.DstID) > wire.MaxIDLen || len(h.SrcID) > wire.MaxIDLen {
		if h, err = wire.Draft18.Parse(a.payload); err != nil {
			t.disprove(a)
			return
		}
	}
	s := t.suspect(a)
	s.ways[s.way(a)].add(a)
	if !s.asked {
		s.asked = true
		s.version = wire.Version(binary.BigEndian.Uint32(a.payload[1:]))
		s.dst, s.src, s.fromA = idOf(h.DstID), idOf(h.SrcID), a.fromA
	}
}

// suspect finds or makes the entry of an arrival.
func (t *Tracker) suspect(a *arrival) *suspect {
	e := t.potential.get(a.key, a.now)
	if e == nil {
		e = t.potential.put(a.key, &suspect{first: a.now, fromA: a.fromA}, a.now)
	}
	e.value.last = a.now
	return e.value
}

func (s *suspect) way(a *arrival) int {
	if a.fromA {
		return 0
	}
	return 1
}

// disprove notes that endpoints send what QUIC does not.
func (t *Tracker) disprove(a *arrival) {
	if e := t.potential.peek(a.key); e != nil {
		e.value.disproved = true
		return
	}
	t.suspect(a).disproved = true
}

// ruledOut says whether endpoints have sent what QUIC does not.
func (t *Tracker) ruledOut(key tuple) bool {
	e := t.potential.peek(key)
	return e != nil && e.value.disproved
}

// suspectShort notes a short header between endpoints that are not known. It is
// one of a connection's if the source is known to talk to the destination.
func (t *Tracker) suspectShort(a *arrival) bool {
	s := t.suspect(a)
	s.latest, s.latestLen = s.way(a), a.length
	s.ways[s.latest].add(a)
	if !s.disproved {
		t.counters.Potential++
	}
	if s.ways[0].packets == 0 || s.ways[1].packets == 0 {
		return false // nobody has answered
	}
	if p := t.bySource(a, s); p != nil {
		t.count(a, p)
		return true
	}
	return false
}

// bySource finds the connection that endpoints which talk to each other are
// another path of, or makes one that is like those between their hosts.
func (t *Tracker) bySource(a *arrival, s *suspect) *path {
	client, server, exact := t.guess(a, s)
	if exact {
		if r := t.prober(client, server, s, a); r != nil {
			return t.probing(a, r, client, server, s, Medium)
		}
	}
	if s.disproved {
		// Others share the sockets (RFC 9443), as does what opens NATs for a
		// connection: of QUIC is only what tries a path then.
		return nil
	}
	if exact {
		if r := t.mover(client, server, s, a); r != nil {
			return t.probing(a, r, client, server, s, Low)
		}
	}
	why := t.why(client, server, s)
	if why == "" {
		return nil
	}
	p := t.open(a, client, server, MidFlow, why)
	t.adopt(p, s)
	t.learnServer(p, a.now)
	t.emit(EventNew, p.record, nil)
	return p
}

// why returns the evidence that there is a connection between two endpoints
// whose datagrams may be QUIC, or nothing.
func (t *Tracker) why(client, server endpoint, s *suspect) string {
	shaped := s.ways[0].protected() || s.ways[1].protected()
	switch {
	case t.sources.peek(sourceKey{anyPort(client), server}) != nil:
		return hostsTalk
	case shaped && t.sources.peek(sourceKey{anyPort(client), anyPort(server)}) != nil:
		return hostsTalk
	case s.ways[0].looks() || s.ways[1].looks():
		return "many short headers with the same random ID, both ways"
	}
	return ""
}

// promote makes connections of what has looked like one all the time, and is
// between hosts that a connection has meanwhile been seen between.
func (t *Tracker) promote() {
	for e := range t.potential.all() {
		s := e.value
		if s.disproved || s.ways[0].packets == 0 || s.ways[1].packets == 0 {
			continue
		}
		if !s.ways[0].protected() && !s.ways[1].protected() {
			continue
		}
		a := arrival{now: t.now, key: e.key, fromA: true, datagram: &decap.Datagram{Src: e.key.a, Dst: e.key.b}}
		client, server, exact := t.guess(&a, s)
		if !exact {
			client, server = t.talking(client, server)
		}
		why := t.why(client, server, s)
		if why == "" {
			continue
		}
		p := t.open(&a, client, server, MidFlow, why)
		s.latest, s.latestLen = 0, 0
		t.adopt(p, s)
		p.ways[p.sender(&a)].packets++ // no arrival is counted once more
		t.learnServer(p, t.now)
		p.record.last = s.last
		t.emit(EventNew, p.record, nil)
	}
}

// hostsTalk is the evidence for a flow in the middle.
const hostsTalk = "short headers between hosts that have a connection"

// talking returns two endpoints the way round in which their hosts have a
// connection, if they do.
func (t *Tracker) talking(client, server endpoint) (endpoint, endpoint) {
	if t.sources.peek(sourceKey{anyPort(server), anyPort(client)}) != nil {
		return server, client
	}
	return client, server
}

// guess says which endpoint is the server's: one that servers answer at, or who
// was asked. exact is false if neither is known.
func (t *Tracker) guess(a *arrival, s *suspect) (client, server endpoint, exact bool) {
	x, y := a.key.a, a.key.b
	switch {
	case t.destinations.peek(y) != nil:
		return x, y, true
	case t.destinations.peek(x) != nil:
		return y, x, true
	case t.sources.peek(sourceKey{client: x}) != nil:
		return x, y, true
	case t.sources.peek(sourceKey{client: y}) != nil:
		return y, x, true
	case s.fromA:
		return x, y, false
	}
	return y, x, false
}

// adopt gives a path what was counted while it was suspected.
func (t *Tracker) adopt(p *path, s *suspect) {
	from := [2]wire.Side{wire.Client, wire.Server} // of ways
	if !p.clientIsA {
		from = [2]wire.Side{wire.Server, wire.Client}
	}
	p.first = s.first
	if p.record.paths[0] == p {
		p.record.first = s.first
	}
	for i, side := range from {
		w := &s.ways[i]
		p.ways[side].packets, p.ways[side].bytes = w.packets, w.bytes
		p.ways[side].first, p.ways[side].last = s.first, s.last
		if p.record.ends[1-side].idLen < 0 && w.protected() {
			t.learnID(p.record, 1-side, idOf(w.prefix[:w.common]), s.last)
			p.ways[side].id = idOf(w.prefix[:w.common])
		}
	}
	// The arrival is in the sums already, and is counted once more.
	w := &p.ways[from[s.latest]]
	w.packets--
	w.bytes -= uint64(s.latestLen)
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }
