package monitor

import (
	"encoding/binary"
	"slices"

	"github.com/quicway/quicway/internal/wire"
)

// connection is what the tracker keeps of a connection. [Connection] is a copy of
// it for callers. There may be very many, so what only few connections have is behind a pointer, and
// small fields are together (see TestConnectionIsSmall).
type connection struct {
	number       uint64
	entry        *entry[uint64, *connection]
	paths        []*path
	active       *path // the path in use
	ids          [2]sideIDs
	origIDs      []ID   // see [Connection.OriginalIDs]
	evidence     string // of the confidence
	version      wire.Version
	versions     [maxVersions]wire.Version // see connection.seenVersions
	versionsSeen uint8                     // how many of versions are set

	first, last int64
	// Times of the handshake, 0 if not seen: of the first Initial of the client's latest
	// attempt, of the server's first answer other than a Retry or a Version Negotiation,
	// and of the client's next packet.
	initialAt, answerAt, confirmAt int64

	origin        origin
	iface         int32
	history       history
	handshake     *handshake // nil: it is not being read, or no longer
	tls           *TLS
	userAgent     *string   // see [Connection.UserAgent]; nil: none
	move          *openMove // which connection it is a move of is not known; or nil
	changes       []PathChange
	departed      *departed // nil: nothing was dropped
	ended         *ending   // the first time that it was closed, or nil
	listed        uint64    // the latest list of suspects that it was put on
	lastSpinEvent int64

	retries, negotiations, zeroRTT, rotations uint32

	returns            uint32 // moves back to a path that was in use before
	glued              uint32
	attempt            attempt // that of the Initial at initialAt
	counted            group   // what the census counts it as
	confidence         Confidence
	dialect            wire.Dialect
	direction          Direction
	negotiated         bool // told to use another version, and no answer since
	open               bool // it has been open; see StateOpen
	quiet              bool // it is counted as silent
	selected, withheld bool // by the filter; withheld: no EventNew was emitted because of it
}

// departed is what is not kept any more of a connection.
type departed struct {
	traffic        [2]Traffic // of paths, by sender
	paths, changes uint32     // how many there were
}

// left returns what is not kept any more, to add to it.
func (c *connection) left() *departed {
	if c.departed == nil {
		c.departed = new(departed)
	}
	return c.departed
}

// gone returns what is not kept any more.
func (c *connection) gone() (out departed) {
	if c.departed != nil {
		out = *c.departed
	}
	return out
}

// sideIDs are the connection IDs of one side: those in packets that go to it.
type sideIDs struct {
	list     []ID // the latest last
	seenOnce ID   // a new ID that one packet has had
	length   int8 // of all of them; -1: not known
}

// has reports whether an ID is in the list.
func (s *sideIDs) has(id []byte) bool {
	for i := range s.list {
		if s.list[i].is(id) {
			return true
		}
	}
	return false
}

// mayBe reports whether packets with another connection's ID may seem to have one
// of these.
func (s *sideIDs) mayBe(id ID) bool {
	for i := range s.list {
		if s.list[i].sharesPrefix(id) {
			return true
		}
	}
	return s.seenOnce.sharesPrefix(id)
}

// dialectOf returns the dialect of a packet with a long header. A connection may
// change to another version (RFC 9368 §2.3). A packet of an unknown version has
// the dialect whose keys have opened the connection's first Initial.
func (c *connection) dialectOf(b []byte) wire.Dialect {
	if len(b) >= 5 {
		if d := wire.Version(binary.BigEndian.Uint32(b[1:])).Dialect(); d != wire.NoDialect {
			return d
		}
	}
	return c.dialect
}

// seenVersions returns all versions that were seen, in their order.
func (c *connection) seenVersions() []wire.Version { return c.versions[:c.versionsSeen] }

func (c *connection) hasVersion(v wire.Version) bool {
	return slices.Contains(c.seenVersions(), v)
}

func (c *connection) addVersion(v wire.Version) {
	if !c.hasVersion(v) && c.versionsSeen < maxVersions {
		c.versions[c.versionsSeen] = v
		c.versionsSeen++
	}
}

func (c *connection) isOrigID(id []byte) bool {
	for i := range c.origIDs {
		if c.origIDs[i].is(id) {
			return true
		}
	}
	return false
}

// knows reports whether packets to a side may have an ID.
func (c *connection) knows(side wire.Side, id []byte) bool {
	return len(id) > 0 && (c.ids[side].has(id) || side == wire.Server && c.isOrigID(id))
}

// answeredBy reports whether a packet from the server has the IDs of the
// client's packets.
func (c *connection) answeredBy(h *wire.Header) bool {
	toClient := c.ids[wire.Client].has(h.DstID) || len(h.DstID) == 0 && c.ids[wire.Client].length == 0
	return toClient && c.knows(wire.Server, h.SrcID)
}

// hasServer reports whether the connection's server is at an endpoint.
func (c *connection) hasServer(server endpoint) bool {
	for _, p := range c.paths {
		if p.server() == server {
			return true
		}
	}
	return false
}

// pathBetween returns the path between two endpoints, or nil.
func (c *connection) pathBetween(key tuple) *path {
	for _, p := range c.paths {
		if p.key == key {
			return p
		}
	}
	return nil
}

// established reports whether the server has answered and the client has sent
// something after that. If the beginning was not captured it is enough that both
// have sent something.
func (c *connection) established() bool {
	return c.confirmAt != 0 || c.initialAt == 0 && c.active.bothWays()
}

// expectsShort reports whether either side may send short headers.
func (c *connection) expectsShort() bool { return c.answerAt != 0 || c.established() }

// silent reports whether no packet of a side was ever captured.
func (c *connection) silent(side wire.Side) bool {
	for _, p := range c.paths {
		if p.sent[side].packets > 0 {
			return false
		}
	}
	return true
}

// raise sets the confidence and its evidence if that is more than before.
func (c *connection) raise(confidence Confidence, evidence string) bool {
	if confidence <= c.confidence {
		return false
	}
	c.confidence, c.evidence = confidence, evidence
	return true
}

// swapSides exchanges client and server.
func (c *connection) swapSides() {
	c.ids[0], c.ids[1] = c.ids[1], c.ids[0]
	if d := c.departed; d != nil {
		d.traffic[0], d.traffic[1] = d.traffic[1], d.traffic[0]
	}
	c.initialAt, c.answerAt, c.confirmAt = 0, 0, 0
	c.origin.swapSides()
	c.history.swapSides()
	for _, p := range c.paths {
		p.clientIsA = !p.clientIsA
		p.sent[0], p.sent[1] = p.sent[1], p.sent[0]
	}
	c.direction = c.direction.reverse()
}

// leastUseful returns the path to remove when the connection has too many: the
// oldest that was never validated, or else the oldest that is not in use.
func (c *connection) leastUseful() *path {
	var oldest *path
	for _, p := range c.paths {
		if p == c.active {
			continue
		}
		if oldest == nil || !p.validated && oldest.validated || p.validated == oldest.validated && p.seen() < oldest.seen() {
			oldest = p
		}
	}
	return oldest
}

// timeHandshake notes the time of a packet of the handshake (RFC 9312 §3.8.1). It
// reports whether that completes the round trip. 0-RTT packets begin no half and end
// none: the server waits for the Initial, and the client does not wait for the server. Neither
// does it for an Initial that acknowledges nothing and does not go to the server's own ID, such as
// the rest of a ClientHello or one that is sent again: then answers is false.
func (c *connection) timeHandshake(a *arrival, p *path, h *wire.Header, answers bool) (complete bool) {
	switch from := p.sender(a); {
	case h.Type == wire.ZeroRTT:
	case from == wire.Client && c.answerAt == 0 && h.Type == wire.Initial:
		c.timeInitial(a, p, h)
	case from == wire.Server && c.answerAt == 0 && c.initialAt != 0:
		c.answerAt = a.now
		c.negotiated = false
	case from == wire.Client && answers:
		return c.confirm(a.now)
	}
	return false
}

// attempt is an attempt of a client: an index in versions, and one in origIDs. After a Version
// Negotiation the client begins again with another version, and after a Retry with another ID.
type attempt struct{ version, id int8 }

// follows reports whether an attempt comes after another one.
func (t attempt) follows(other attempt) bool {
	return t != other && t.version >= other.version && t.id >= other.id
}

// timeInitial notes the time of an Initial that the server has not answered, if it is the first one of
// the client's latest attempt. If the client sends an Initial again the first one counts, though the
// server may have got only the second.
func (c *connection) timeInitial(a *arrival, p *path, h *wire.Header) {
	t := attempt{
		version: int8(slices.Index(c.seenVersions(), h.Version)),
		id:      int8(slices.IndexFunc(c.origIDs, func(id ID) bool { return id.is(h.DstID) })),
	}
	switch {
	case c.initialAt == 0 && p.sent[wire.Server].packets > uint64(c.retries+c.negotiations):
		return // the attempt that the server has answered was not captured
	case c.initialAt != 0 && !t.follows(c.attempt):
		return
	}
	c.initialAt, c.attempt = a.now, t
}

// confirm notes the time of the client's first packet after the server's answer.
// It reports whether this is that packet.
func (c *connection) confirm(now int64) bool {
	if c.answerAt == 0 || c.confirmAt != 0 {
		return false
	}
	c.confirmAt = now
	if c.handshake != nil && c.handshake.done() {
		c.handshake.keys = [2]sideKeys{} // hardly an Initial follows, for which they would be derived again
	}
	return true
}
