package monitor

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/quicway/quicway/internal/decap"
	"github.com/quicway/quicway/internal/wire"
)

// candidate is a flow that may be QUIC: short headers with nothing before them, or
// a long header of an unknown version.
type candidate struct {
	first, last int64
	directions  *[2]candidateDirection // 0: from key.a; noDirections until there is something to note
	checkedAt   uint64                 // [index.changes] when alone was found out; 0: never
	potential   uint64                 // how many of its datagrams [Stats].Potential has
	uncounted   lone                   // the latest datagram, if the tracker will count it for its path
	long        *unknownLong           // the first long header of an unknown version; nil: none
	fromA       bool                   // the first datagram was sent from key.a
	disproved   bool                   // there was a datagram that is not QUIC
	shunned     bool                   // a connection began that the filter excludes
	alone       bool                   // see [index.alone]
	waiting     bool                   // more packets have to show which connection has moved here
	latest      uint8                  // the direction of the latest datagram
}

// unknownLong is a long header of an unknown version.
type unknownLong struct {
	version  wire.Version
	dst, src ID
}

// lone is a datagram that was counted, or none if its length is 0.
type lone struct {
	length uint32
	ecn    decap.ECN
}

// noDirections are the directions of a candidate of which nothing was noted. They never change. Most
// candidates are disproved by their first datagram.
var noDirections [2]candidateDirection

// noted returns the directions to change them.
func (s *candidate) noted() *[2]candidateDirection {
	if s.directions == &noDirections {
		s.directions = new([2]candidateDirection)
	}
	return s.directions
}

// candidateDirection is one direction of a candidate. If it is QUIC all packets
// begin with the same bytes, up to the length of the connection ID, and differ
// behind them.
type candidateDirection struct {
	packets, bytes uint64
	ecn            ECN
	firstLen       int32
	usedAt         int64                   // when the first datagram came that is no probe; 0: none
	recent         [movedAfter]int64       // when the latest ones came, in turn
	prefix         [wire.MaxIDLen + 4]byte // after the first byte of the first packet
	common         uint8                   // how much of prefix all packets have
	low            uint32                  // the values of the low five bits of first bytes: a bit each
}

// add adds a packet.
func (d *candidateDirection) add(a *arrival) {
	rest := a.payload[1:]
	if d.packets == 0 {
		d.firstLen = int32(a.length)
		d.common = uint8(copy(d.prefix[:], rest))
	}
	n := uint8(0)
	for n < d.common && int(n) < len(rest) && rest[n] == d.prefix[n] {
		n++
	}
	d.common = n
	d.low |= 1 << (a.payload[0] & 0x1f)
	if d.usedAt == 0 && a.length < probeLen {
		d.usedAt = a.now
	}
	d.recent[d.packets%movedAfter] = a.now
	d.packets++
	d.bytes += uint64(a.length)
	d.ecn.count(a.datagram.ECN, 1)
}

func (d *candidateDirection) traffic() Traffic { return Traffic{d.packets, d.bytes, d.ecn} }

// inARow reports whether the latest packets came after a time, as many as a connection that has
// moved sends at least.
func (d *candidateDirection) inARow(after int64) bool {
	return d.packets >= movedAfter && slices.Min(d.recent[:]) > after
}

// fits reports whether the packets may have connection IDs of n bytes, -1 if the length is not
// known. Bytes behind the ID are random (RFC 9001 §5.4), so few of them are the same in all packets.
func (d *candidateDirection) fits(n int8) bool {
	if n < 0 || d.packets == 0 {
		return true
	}
	return d.common >= uint8(n) && (d.packets == 1 || d.common <= uint8(n)+2)
}

// looksProtected reports whether the packets look as protected ones with an ID
// do: all have the same ID, first bytes differ, and nothing behind the ID is
// constant.
func (d *candidateDirection) looksProtected() bool {
	return d.packets >= 2 && d.common >= minLookup && d.common <= wire.MaxIDLen && d.low&(d.low-1) != 0
}

// What it takes to accept packets as QUIC by their looks alone.
const (
	looksPackets = 3 // with the same ID
	looksLow     = 2 // values of the first byte's protected bits, of 32
	looksID      = 3 // different bytes in the ID
)

// looksQUIC reports whether the packets are most likely nothing but QUIC: many,
// all with the fixed bit and the same random ID, and random bits before and
// after it (RFC 9001 §5.4).
func (d *candidateDirection) looksQUIC() bool {
	if !d.looksProtected() || d.packets < looksPackets || bits.OnesCount32(d.low) < looksLow {
		return false
	}
	seen := [256]bool{}
	n := 0
	for _, b := range d.prefix[:d.common] {
		if !seen[b] {
			seen[b] = true
			n++
		}
	}
	return n >= looksID && !seen[0]
}

// directionFrom returns the index of the direction from key.a, or from key.b.
func directionFrom(a bool) int {
	if a {
		return 0
	}
	return 1
}

// addShort adds a short header.
func (s *candidate) addShort(a *arrival) {
	from := directionFrom(a.fromA)
	s.latest, s.uncounted = uint8(from), lone{uint32(a.length), a.datagram.ECN}
	s.noted()[from].add(a)
}

// addCounted adds packets of a direction that the kernel has counted.
func (s *candidate) addCounted(fromA bool, n Traffic, last int64) {
	d := &s.noted()[directionFrom(fromA)]
	d.packets += n.Packets
	d.bytes += n.Bytes
	d.ecn.add(n.ECN)
	s.last = max(s.last, last)
}

func (s *candidate) bothWays() bool {
	return s.directions[0].packets > 0 && s.directions[1].packets > 0
}

// looksProtected reports whether the packets of either direction do.
func (s *candidate) looksProtected() bool {
	return s.directions[0].looksProtected() || s.directions[1].looksProtected()
}

// looksQUIC reports whether the packets of either direction do.
func (s *candidate) looksQUIC() bool {
	return s.directions[0].looksQUIC() || s.directions[1].looksQUIC()
}

// to returns the direction of the packets that go to a side.
func (s *candidate) to(side wire.Side, clientIsA bool) *candidateDirection {
	return &s.directions[directionFrom((side == wire.Server) == clientIsA)]
}

func (s *candidate) packets() uint64 { return s.directions[0].packets + s.directions[1].packets }

// fits reports whether the packets may have connection IDs as long as a connection's.
func (s *candidate) fits(c *connection, clientIsA bool) bool {
	return s.to(wire.Client, clientIsA).fits(c.ids[wire.Client].length) &&
		s.to(wire.Server, clientIsA).fits(c.ids[wire.Server].length)
}

// beganWithProbes reports whether the first datagrams of both directions are as
// long as those that probe a path.
func (s *candidate) beganWithProbes() bool {
	return s.directions[0].firstLen >= probeLen && s.directions[1].firstLen >= probeLen
}

// potentialTable holds the candidates.
type potentialTable struct {
	table[tuple, candidate]
}

// at returns the entry of an arrival's endpoints, or nil.
func (t *potentialTable) at(a *arrival) *entry[tuple, candidate] { return t.find(&a.key, a.hash) }

// of returns the candidate of an arrival's endpoints. It adds one if there is none.
func (t *potentialTable) of(a *arrival) *candidate {
	e := t.at(a)
	if e != nil {
		t.touch(e, a.now)
	} else {
		e = t.put(a.key, candidate{first: a.now, fromA: a.fromA, directions: &noDirections}, a.now)
	}
	e.value.last = a.now
	return &e.value
}

// addLong adds a long header of an unknown version, which may be answered by a
// Version Negotiation.
func (t *potentialTable) addLong(a *arrival) {
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
	s := t.of(a)
	s.noted()[directionFrom(a.fromA)].add(a)
	if s.long == nil {
		s.long = &unknownLong{wire.Version(binary.BigEndian.Uint32(a.payload[1:])), idOf(h.DstID), idOf(h.SrcID)}
		s.fromA = a.fromA
	}
}

// disprove notes that an arrival is not QUIC.
func (t *potentialTable) disprove(a *arrival) {
	if e := t.at(a); e != nil {
		e.value.disproved = true
		return
	}
	t.of(a).disproved = true
}

// disproved reports whether there was a datagram between two endpoints that is
// not QUIC, or belongs to a connection that the filter excludes.
func (t *potentialTable) disproved(key tuple) bool {
	e := t.peek(key)
	return e != nil && e.value.ruledOut()
}

// ruledOut is disproved for a candidate.
func (s *candidate) ruledOut() bool { return s.disproved || s.shunned }
