package monitor

import (
	"encoding/binary"

	"github.com/quicway/quicway/internal/wire"
)

// Bounds of a record.
const (
	maxPaths     = 16 // of a connection
	maxShared    = 8  // connections on a pair of endpoints
	maxRecordIDs = 8  // that are kept of an end
	maxOrigIDs   = 4
	maxVersions  = 4
	maxChanges   = 16
	maxOwners    = 4 // of an ID
)

// record is a connection.
type record struct {
	number     uint64
	confidence Confidence
	evidence   string
	version    wire.Version
	dialect    wire.Dialect
	versions   []wire.Version
	origIDs    []ID
	ends       [2]end // by wire.Side: where packets to that side's IDs go
	paths      []*path
	active     *path
	changes    []PathChange
	attempt    *attempt // what is known of a handshake that goes on
	tls        *TLS

	first, last int64
	asked       int64 // when the client sent its first Initial
	answered    int64 // when the server's Initial or Handshake came
	concluded   int64 // when the client's next packet came

	retries, negotiations, zeroRTT, rotations, flips uint32
	initials                                         [2]uint32
	glued                                            uint32
	negotiated                                       bool // and no answer since
	direction                                        Direction
	iface                                            int
	lastSpinEvent                                    int64
	entry                                            *entry[uint64, *record]
}

// end is what packets to one side look like.
type end struct {
	idLen     int8 // -1: not known
	ids       []ID // the latest last
	candidate ID   // seen once
}

func (e *end) has(id []byte) bool {
	for i := range e.ids {
		if e.ids[i].is(id) {
			return true
		}
	}
	return false
}

// attempt is a handshake before it is over.
type attempt struct {
	keyID   ID
	keys    [2]sideKeys
	streams [2]wire.CryptoStream
	read    [2]bool // the hello of that side
}

// sideKeys open the Initials of a side in the dialect that it has used last.
type sideKeys struct {
	dialect wire.Dialect
	keys    *wire.InitialKeys // nil: not derived yet
}

// path is a pair of endpoints that a connection uses.
type path struct {
	record         *record
	key            tuple
	client, server endpoint
	clientIsA      bool
	validated      bool // packets went both ways, or began the connection
	first          int64
	ways           [2]way // by the side that sends
	kind           ChangeKind
	change         int    // 1 + index in record.changes of the one that led here
	streak         uint64 // packets since a pause
	run            uint32 // packets of the client (if captured) since the active path had one,
	mark           uint64 // which was its so manieth
}

// way is one direction of a path.
type way struct {
	packets, bytes uint64
	first, last    int64
	short          bool   // there was a short header
	id             ID     // the latest destination ID
	segment        uint16 // size of the datagrams in the latest train
	spin           spin
}

// dialectOf is that of a packet with a long header. A connection may go on in
// another version than it began with (RFC 9368 §2.3); one that nobody knows has
// the dialect that has opened it.
func (r *record) dialectOf(b []byte) wire.Dialect {
	if len(b) >= 5 {
		if d := wire.Version(binary.BigEndian.Uint32(b[1:])).Dialect(); d != wire.NoDialect {
			return d
		}
	}
	return r.dialect
}

func (r *record) hasVersion(v wire.Version) bool {
	for _, have := range r.versions {
		if have == v {
			return true
		}
	}
	return false
}

func (r *record) addVersion(v wire.Version) {
	if !r.hasVersion(v) && len(r.versions) < maxVersions {
		r.versions = append(r.versions, v)
	}
}

func (r *record) isOrigID(id []byte) bool {
	for i := range r.origIDs {
		if r.origIDs[i].is(id) {
			return true
		}
	}
	return false
}

// established says whether both sides have sent what only a live connection
// has: the server an answer, and the client something after it. If the beginning
// was not captured any packet is after it.
func (r *record) established() bool {
	return r.concluded != 0 || r.asked == 0 && r.active.bothWays()
}

// talks says whether short headers may come, of either side.
func (r *record) talks() bool { return r.answered != 0 || r.established() }

// raise lifts the confidence, and never lowers it.
func (r *record) raise(c Confidence, evidence string) bool {
	if c <= r.confidence {
		return false
	}
	r.confidence, r.evidence = c, evidence
	return true
}
