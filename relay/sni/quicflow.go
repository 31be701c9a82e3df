package sni

import (
	"container/list"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
	"github.com/quicway/quicway/quota"
)

// quicConn is a QUIC connection of a client, at one or more of the client's addresses. The
// mutex of the flowTable guards it, except for idLen.
type quicConn struct {
	hello Hello
	route *Route // nil: not known yet
	at    upstreamAddr
	slot  *quota.Slot // nil: there is no quota
	began time.Time
	flows []*flow // the oldest first
	ids   idSet
	// idLen is the length of the upstream's connection IDs; -1: not known.
	idLen atomic.Int32
	// counted says that the connection counts for its route.
	counted bool
	// answered says that an upstream has answered: the connection stays there.
	answered bool
	// ended says that the last flow has ended, or the quota has ended the connection: there
	// will be no other flow.
	ended bool
	// fresh says that the connection was found at another address, and its first one is
	// not known. It never changes.
	fresh bool
}

// upstreamAddr is an upstream, and one of its addresses.
type upstreamAddr struct {
	*upstream
	addr netip.AddrPort
}

// endpoints are the addresses of a flow between a client and the relay.
type endpoints struct {
	client netip.AddrPort
	relay  netip.Addr // the zero Addr: not known
}

// flow is a connection at one address of the client. It has an upstream socket of its own, so
// that the upstream sees another address when the client's address changes.
type flow struct {
	shard *shard
	endpoints
	conn  *quicConn
	began time.Time
	// moved says that the flow was opened because a known connection has come from
	// another address.
	moved bool
	// sameHost says that the client of a moved flow has a confirmed flow at another port.
	sameHost bool
	// cheap says that anybody can begin such a flow at no cost: by a short header with an
	// ID that is not known, or by a 0-RTT packet. No other client's flow and no confirmed
	// one makes room for it.
	cheap bool

	member    atomic.Pointer[udp.Member] // nil: there is none yet
	answered  atomic.Bool                // the upstream has sent something
	confirmed atomic.Bool                // the client has shown that it receives the upstream's datagrams
	ended     atomic.Bool
	active    atomic.Int64 // time of the last datagram, as shard.now
	credit    atomic.Int64 // bytes that may be sent to a client that is not confirmed
	turn      atomic.Int32 // what the upstream has sent since the client's last datagram

	fromClient, fromUpstream atomic.Uint64 // bytes

	// The shard's mutex guards the following.
	attempt *attempt // nil: no datagrams are held
	// keys open the client's Initials; nil: not known, or no longer needed.
	keys   *wire.InitialKeys
	source connID // that the client has chosen for itself
	at     upstreamAddr
	last   connID // the ID of the latest short header
	used   int64  // when a known ID was used, if the address has several flows
	guess  guess
	turns  int       // how often the client has sent something after the upstream
	asked  time.Time // when the upstream was asked
	first  int32     // the first and the last datagram to send, in shard.out
	final  int32

	// The flowTable's mutex guards the following.
	to      *upstream     // that counts the flow; or nil
	waiting *list.Element // among those that are not confirmed; or nil
	same    *list.Element // among those of its source; or nil
	cancel  func()        // ends the search for an upstream; or nil
	// presumed says that the client has confirmed the flow by an ID that the relay cannot
	// check. Somebody else could have.
	presumed bool

	// Used only by the loop of the group.
	heard connID // the upstream's latest ID
}

// Values of flow.turn.
const (
	turnNone  int32 = iota
	turnSmall       // datagrams that are smaller than those of a path validation
	turnFull        // one of 1200 bytes or more (RFC 9000 §8.2.1)
)

// minInitial is the minimum size of a datagram with an Initial, and of those of a path
// validation, in bytes (RFC 9000 §8.2.1, §14.1).
const minInitial = 1200

// factor is how many bytes may be sent to a client that is not confirmed, for each byte that
// has come from it (RFC 9000 §8.1).
const factor = 3

// probeCredit is the number of bytes that may be sent at once to another port of a host that
// has confirmed: the upstream validates the path with full datagrams.
const probeCredit = 2 * 1500

// pay takes the bytes of a datagram to the client from the credit, if there is enough.
func (f *flow) pay(size int) bool {
	for {
		have := f.credit.Load()
		if have < int64(size) {
			return false
		}
		if f.credit.CompareAndSwap(have, have-int64(size)) {
			return true
		}
	}
}

// usable reports whether the flow exists, and has a socket.
func (f *flow) usable() bool { return !f.ended.Load() && f.member.Load() != nil }

// shortIDs reports whether the upstream's IDs are so short that they prove nothing.
func (f *flow) shortIDs() bool {
	n := f.conn.idLen.Load()
	return n >= 0 && n < minKnownID
}

// isKnown reports whether a datagram with a short header is certainly one of the flow, which is
// the only one of its address.
func (f *flow) isKnown(datagram []byte) bool {
	return f.confirmed.Load() && (f.last.len > 0 && f.last.isShortID(datagram) || f.shortIDs())
}

// answers reports whether a datagram from the client shows that it receives what the upstream
// sends, as far as that can be seen without the keys. full says that it does if it is a full
// datagram that follows one, like PATH_RESPONSE after PATH_CHALLENGE (RFC 9000 §8.2). Otherwise
// the client has to answer several times.
func (f *flow) answers(size int, full bool) bool {
	turn := f.turn.Swap(turnNone)
	if turn == turnNone {
		return false
	}
	f.turns++
	return full && turn == turnFull && size >= minInitial || f.turns >= f.enoughTurns()
}

// enoughTurns returns how often a client has to answer until its address counts as confirmed. The
// upstream sends what it has as soon as it has validated a path itself, so a moved flow should
// not take longer: what is dropped then, the client does not know of and does not ask for.
func (f *flow) enoughTurns() int {
	switch {
	case f.sameHost:
		return 1
	case f.moved:
		return 2
	}
	return 4
}
