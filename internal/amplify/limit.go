// Package amplify keeps what a socket sends to an address that has not been
// validated within three times what has come from it (RFC 9000 §8.1 and §8.2.1),
// whatever the QUIC above the socket does.
//
// An address is validated
//
//   - by an echo: it has sent a packet with a connection ID that was sent to it in
//     a long header, and to nobody else (RFC 9000 §8.1);
//   - by a connection: it is the address of one whose handshake is complete, or
//     that has moved there, which QUIC does when the path is validated (RFC 9000
//     §9.3). See [Peer.Follow].
//
// A token is no proof: whoever has had an address once may show it for ever.
package amplify

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/quicway/quicway/internal/wire"
)

const (
	// factor is how many times what came from an address may go there.
	factor = 3
	// minEcho is the shortest ID that nobody guesses in as many packets as
	// the address could have been sent otherwise.
	minEcho = 4
	// minFirstID is the shortest Destination Connection ID of a client's first
	// Initial (RFC 9000 §7.2).
	minFirstID = 8
)

// Config configures a [Limit]. The zero value works.
type Config struct {
	// IDLen is the length of the connection IDs that are made here.
	IDLen int
	// Dials says that this side may open connections as well: an Initial to
	// an address that has begun no handshake is not held back.
	Dials bool
	// Guess says that connections are not followed as long as [Peer.Follow] has
	// not been called: then a packet that neither is as long as the probe of a
	// path nor as short as a stateless reset means that its address is
	// validated, because QUIC sends nothing else elsewhere.
	Guess bool
}

// Limit counts what comes from and goes to the addresses that have not been
// validated. Its memory is bounded: connections have an account each, all others
// together a table. All methods may be called concurrently. Each address belongs to
// one of many locks.
type Limit struct {
	conf      Config
	seed      maphash.Seed
	shards    [shardCount]shard
	dropped   atomic.Uint64
	following atomic.Bool
	followed  followed
}

// New makes a Limit.
func New(conf Config) *Limit { return &Limit{conf: conf, seed: maphash.MakeSeed()} }

// Dropped returns how many messages were not to be sent.
func (l *Limit) Dropped() uint64 { return l.dropped.Load() }

// tag stands for an address. Nobody knows the seed, so nobody can make two that
// look alike.
func (l *Limit) tag(addr netip.AddrPort) uint64 {
	var b [18]byte
	ip := addr.Addr().As16()
	copy(b[:], ip[:])
	binary.BigEndian.PutUint16(b[16:], addr.Port())
	return maphash.Bytes(l.seed, b[:])
}

// Received takes note of a datagram that an address has sent, or of several with one
// ID: size is what they have together, and b the first of them.
func (l *Limit) Received(from netip.AddrPort, b []byte, size int) {
	tag := l.tag(from)
	sh := l.shard(tag)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	a := sh.find(tag)
	if a != nil && a.proven {
		return
	}
	if a == nil {
		a = sh.add(tag)
	}
	a.credit += factor * int64(size)
	if len(b) == 0 {
		return
	}
	id, err := wire.DstID(b, l.conf.IDLen)
	if err != nil {
		return
	}
	a.hear(l.idTag(id), wire.IsLong(b[0]))
}

// MaySend says whether a message may go to an address: b, in datagrams of one ID.
func (l *Limit) MaySend(to netip.AddrPort, b []byte) bool {
	if len(b) == 0 {
		return true
	}
	tag := l.tag(to)
	sh := l.shard(tag)
	sh.mu.Lock()
	a := sh.find(tag)
	if a != nil && a.proven {
		sh.mu.Unlock()
		return true
	}
	ok := l.maySendLocked(sh, a, tag, b)
	sh.mu.Unlock()
	if ok && wire.IsLong(b[0]) {
		return true
	}
	// Not only when it has to be: an address that a connection has left must not
	// be taken for its own.
	if l.moved(tag) || ok {
		return true
	}
	l.dropped.Add(1)
	return false
}

// maySendLocked judges a message to an address that is not validated.
func (l *Limit) maySendLocked(sh *shard, a *account, tag uint64, b []byte) bool {
	if wire.IsLong(b[0]) {
		if a == nil {
			a = sh.add(tag)
		}
		return l.mayGreet(a, b)
	}
	switch {
	case a == nil:
		return l.conf.Dials // nothing has come from there to reflect
	case l.guess(b):
		a.proven = true
		return true
	}
	return a.pay(len(b))
}

// mayGreet judges a packet of a handshake, and takes note of its ID.
func (l *Limit) mayGreet(a *account, b []byte) bool {
	dst, src, err := wire.IDs(b)
	if err != nil {
		return a.pay(len(b))
	}
	if len(src) >= minEcho {
		a.learn(l.idTag(src))
	}
	if l.conf.Dials && !a.asked && len(dst) >= minFirstID {
		a.dialed = true
	}
	return a.dialed || a.pay(len(b))
}

// Sizes that tell what QUIC sends to an address that it has not validated.
const (
	probeSize = 1200 // RFC 9000 §8.2.1
	resetSize = 43   // RFC 9000 §10.3.3: shorter than what it answers
)

// guess says whether a packet with a short header shows that QUIC takes its address
// for validated. See [Config.Guess].
func (l *Limit) guess(b []byte) bool {
	return l.conf.Guess && !l.following.Load() && len(b) != probeSize && len(b) > resetSize
}

func (l *Limit) idTag(id []byte) uint64 { return maphash.Bytes(l.seed, id) }

func (l *Limit) shard(tag uint64) *shard { return &l.shards[tag%shardCount] }

// shardCount is how many locks there are.
const shardCount = 64

// shard is some of the addresses.
type shard struct {
	mu     sync.Mutex      // guards the following
	pinned map[uint64]*pin // of connections and handshakes
	table  []account       // of all others; made when the first comes
	clock  uint32          // counts uses of the table
	_      [64]byte
}
