// Package amplify limits what a socket sends to an address that has not been validated to three
// times what has come from that address (RFC 9000 §8.1 and §8.2.1), whatever the QUIC
// implementation on the socket does.
//
// An address is validated
//
//   - by an echo: it has sent a packet with a connection ID that was sent only to that address,
//     in a long header (RFC 9000 §8.1);
//   - by a connection: a connection at that address has completed its handshake, or has
//     migrated to the address, which QUIC allows when it has validated the path
//     (RFC 9000 §9.3). See [Peer.Follow].
//
// A token (RFC 9000 §8.1.3) does not validate an address, because a client can show it long
// after it had the address.
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
	// factor is how many bytes may be sent for each byte received (RFC 9000 §8.1).
	factor = 3
	// minEcho is the minimum length of a connection ID that validates an address, in
	// bytes. An attacker would need more packets to guess such an ID than it could
	// cause to be sent by amplification.
	minEcho = 4
	// minFirstID is the minimum length of the Destination Connection ID of a client's
	// first Initial (RFC 9000 §7.2).
	minFirstID = 8
)

// Config configures a [Limit]. The zero value works.
type Config struct {
	// IDLen is the length of the connection IDs of this endpoint, in bytes.
	IDLen int
	// Dials says that this endpoint also opens connections: an Initial to an address
	// that has not begun a handshake is not limited.
	Dials bool
	// Guess says that the caller may not call [Peer.Follow]. As long as it has not been
	// called, an address counts as validated when QUIC sends a packet with a short
	// header there that has neither the size of a path probe nor that of a stateless
	// reset, because QUIC sends nothing else to an address that is not validated.
	Guess bool
}

// Limit counts the bytes from and to addresses that have not been validated. Its memory is
// bounded: the address of each connection has an account, and all other addresses share a table
// of fixed size. All methods may be called concurrently.
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

// Dropped returns for how many messages MaySend has returned false.
func (l *Limit) Dropped() uint64 { return l.dropped.Load() }

// tag returns the hash of an address. The seed is secret, so nobody can make two addresses with the
// same hash.
func (l *Limit) tag(addr netip.AddrPort) uint64 {
	var b [18]byte
	ip := addr.Addr().As16()
	copy(b[:], ip[:])
	binary.BigEndian.PutUint16(b[16:], addr.Port())
	return maphash.Bytes(l.seed, b[:])
}

// Received counts datagrams that have come from an address and have the same connection ID. b is
// the first of them, and size is the size of all of them, in bytes.
func (l *Limit) Received(from netip.AddrPort, b []byte, size int) {
	tag := l.tag(from)
	sh := l.shard(tag)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	a := sh.find(tag)
	if a != nil && a.validated {
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
	a.receive(l.idTag(id), wire.IsLong(b[0]))
}

// MaySend says whether datagrams with the same connection ID may be sent to an address, and counts
// them if so. b is all of them.
func (l *Limit) MaySend(to netip.AddrPort, b []byte) bool {
	if len(b) == 0 {
		return true
	}
	tag := l.tag(to)
	sh := l.shard(tag)
	sh.mu.Lock()
	a := sh.find(tag)
	if a != nil && a.validated {
		sh.mu.Unlock()
		return true
	}
	ok := l.maySendLocked(sh, a, tag, b)
	sh.mu.Unlock()
	if ok && wire.IsLong(b[0]) {
		return true
	}
	// moved is called even if the packet may be sent: it also finds out that a
	// connection has left an address.
	if l.moved(tag) || ok {
		return true
	}
	l.dropped.Add(1)
	return false
}

// maySendLocked decides about a message to an address that is not validated. a may be nil.
func (l *Limit) maySendLocked(sh *shard, a *account, tag uint64, b []byte) bool {
	if wire.IsLong(b[0]) {
		if a == nil {
			a = sh.add(tag)
		}
		return l.mayGreet(a, b)
	}
	switch {
	case a == nil:
		return l.conf.Dials // nothing has come from the address that could be amplified
	case l.guess(b):
		a.validated = true
		return true
	}
	return a.pay(len(b))
}

// mayGreet decides about a packet of a handshake, and remembers its Source Connection ID.
func (l *Limit) mayGreet(a *account, b []byte) bool {
	dst, src, err := wire.IDs(b)
	if err != nil {
		return a.pay(len(b))
	}
	if len(src) >= minEcho {
		a.send(l.idTag(src))
	}
	if l.conf.Dials && !a.asked && len(dst) >= minFirstID {
		a.dialed = true
	}
	return a.dialed || a.pay(len(b))
}

// Sizes of the packets that QUIC sends to an address that it has not validated, in bytes.
const (
	probeSize = 1200 // RFC 9000 §8.2.1
	resetSize = 43   // at most: RFC 9000 §10.3.3
)

// guess says whether a packet with a short header shows that QUIC has validated its address. See
// [Config.Guess].
func (l *Limit) guess(b []byte) bool {
	return l.conf.Guess && !l.following.Load() && len(b) != probeSize && len(b) > resetSize
}

func (l *Limit) idTag(id []byte) uint64 { return maphash.Bytes(l.seed, id) }

func (l *Limit) shard(tag uint64) *shard { return &l.shards[tag%shardCount] }

// shardCount is the number of shards.
const shardCount = 64

// shard has the accounts of some of the addresses.
type shard struct {
	mu     sync.Mutex      // guards the following
	pinned map[uint64]*pin // accounts of addresses with connections or handshakes
	table  []account       // of all others; made on first use
	clock  uint32          // counts uses of accounts in the table
	_      [64]byte
}
