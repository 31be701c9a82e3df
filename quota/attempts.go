package quota

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"time"

	"github.com/quicway/quicway/internal/wire"
)

// The table of a shard has attemptSets sets of attemptWays entries. An attempt is
// stored in one set.
const (
	attemptWays = 4
	attemptSets = 256
)

// attemptTable remembers attempts that were let in or refused, for as long as a handshake
// may take, so that the second datagram of a ClientHello and retransmissions do not
// count as new attempts. An attempt that there is no room for is forgotten, and
// counts as new when more of it comes.
type attemptTable struct {
	entries []knownAttempt // attemptSets times attemptWays; allocated when the first attempt comes
}

// knownAttempt is an attempt. The tag is a hash of its address, port, and connection ID, with
// a secret seed, so that a client cannot choose attempts whose tags collide.
type knownAttempt struct {
	tag     uint64
	until   instant
	refused bool
}

// attemptTag returns the tag of an attempt.
func attemptTag(seed maphash.Seed, from netip.AddrPort, id []byte) uint64 {
	var b [16 + 2 + 1 + wire.MaxIDLen]byte
	addr := from.Addr().As16()
	n := copy(b[:], addr[:])
	binary.BigEndian.PutUint16(b[n:], from.Port())
	b[n+2] = byte(len(id))
	n += 3 + copy(b[n+3:], id)
	return maphash.Bytes(seed, b[:n])
}

// endpointTag returns the tag of all attempts from an address and port. If token is
// not empty, it is the tag of those attempts that carry the token.
func endpointTag(seed maphash.Seed, from netip.AddrPort, token []byte) uint64 {
	tag := attemptTag(seed, from, nil)
	if len(token) > 0 {
		tag ^= maphash.Bytes(seed, token)
	}
	return tag
}

func (t *attemptTable) set(tag uint64) []knownAttempt {
	at := tag % attemptSets * attemptWays
	return t.entries[at : at+attemptWays]
}

// find reports whether an attempt is known, and whether it was refused.
func (t *attemptTable) find(tag uint64, now instant) (refused, known bool) {
	if t.entries == nil {
		return false, false
	}
	for _, e := range t.set(tag) {
		if e.tag == tag && e.until > now {
			return e.refused, true
		}
	}
	return false, false
}

// put remembers an attempt, in place of the one in its set that expires first.
func (t *attemptTable) put(tag uint64, until instant, refused bool) {
	if t.entries == nil {
		t.entries = make([]knownAttempt, attemptSets*attemptWays)
	}
	set := t.set(tag)
	at := 0
	for i := range set {
		if set[i].tag == tag {
			at = i
			break
		}
		if set[i].until < set[at].until {
			at = i
		}
	}
	set[at] = knownAttempt{tag, until, refused}
}

// refusals remembers the latest refusals of a shard by address and port. quic-go
// keeps no state of an attempt that it has refused, and takes the second datagram of
// the same ClientHello for another attempt.
type refusals struct {
	latest [16]refusal
	next   int
}

type refusal struct {
	remote netip.AddrPort
	until  instant
}

// repeatWindow is how long after a refusal more datagrams of the same attempt may
// come.
const repeatWindow = instant(250 * time.Millisecond)

func (r *refusals) put(remote netip.AddrPort, now instant) {
	r.latest[r.next] = refusal{remote, now + repeatWindow}
	r.next = (r.next + 1) % len(r.latest)
}

func (r *refusals) has(remote netip.AddrPort, now instant) bool {
	for i := range r.latest {
		if r.latest[i].remote == remote && r.latest[i].until > now {
			return true
		}
	}
	return false
}

// forget is called before a datagram that is certainly a new attempt.
func (r *refusals) forget(remote netip.AddrPort) {
	for i := range r.latest {
		if r.latest[i].remote == remote {
			r.latest[i].until = 0
		}
	}
}
