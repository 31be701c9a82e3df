package quota

import (
	"math"
	"net/netip"
	"sync"
	"time"
)

// never is an instant before all others.
const never = math.MinInt64 / 2

// keep is how long a source is remembered after nothing is held against it.
const keep = time.Minute

// maxShards is into how many parts the sources are divided, each with a lock, if
// there may be enough of them.
const maxShards = 64

// key is the address of a source or a site: 16 bytes, of IPv4 mapped into IPv6.
type key [16]byte

// source is a source, or a site.
type source struct {
	level
	key      key
	at       uint32 // in the shard's ring
	isSite   bool
	site     *source // of a source; nil: none
	sources  int32   // of a site: those that are remembered
	answer   bucket  // refusals that were sent
	seen     instant // when it was last of interest
	reported instant // when it was last the subject of an event
	told     instant // until when the enforcer turns it away
	admitted uint64
	refused  uint64
	dropped  uint64
}

// shard is a part of the sources. A source is in the shard of its site.
type shard struct {
	mu       sync.Mutex // guards the following
	max      int
	sources  map[key]*source
	sites    map[key]*source
	ring     []*source // all of them, in no order
	hand     int       // the next in the ring to be looked at
	spare    []*source // to be used again
	slab     []source  // never used
	slots    *Slot     // a list of all, whether their sources are remembered or not
	flows    flows
	refusals refusals
	_        [64]byte
}

// slabSize is how many sources are allocated at once.
const slabSize = 32

// masked is the key of the prefix of an address.
func masked(addr netip.Addr, bits int) key {
	k := key(addr.As16())
	if addr.Is4() {
		bits += 96
	}
	if whole := bits / 8; whole < len(k) {
		k[whole] &^= 0xff >> (bits % 8)
		clear(k[whole+1:])
	}
	return k
}

// prefix is the inverse of masked.
func (k key) prefix(v4bits, v6bits int) netip.Prefix {
	addr := netip.AddrFrom16(k).Unmap()
	if addr.Is4() {
		return netip.PrefixFrom(addr, v4bits)
	}
	return netip.PrefixFrom(addr, v6bits)
}

// get returns what is remembered under a key, or nil.
func (sh *shard) get(k key, site bool, now instant) *source {
	table := sh.sources
	if site {
		table = sh.sites
	}
	s := table[k]
	if s != nil {
		s.seen = now
	}
	return s
}

// add remembers something new, or returns nil if there is no room.
func (sh *shard) add(k key, site *source, isSite bool, l *limits, now instant) *source {
	if !sh.room(now) {
		return nil
	}
	s := sh.alloc()
	*s = source{level: level{limits: l}, key: k, at: uint32(len(sh.ring)), isSite: isSite, site: site, seen: now, reported: never}
	sh.ring = append(sh.ring, s)
	if isSite {
		sh.sites[k] = s
		return s
	}
	sh.sources[k] = s
	if site != nil {
		site.sources++
	}
	return s
}

func (sh *shard) alloc() *source {
	if n := len(sh.spare); n > 0 {
		s := sh.spare[n-1]
		sh.spare = sh.spare[:n-1]
		return s
	}
	if len(sh.slab) == 0 {
		sh.slab = make([]source, slabSize)
	}
	s := &sh.slab[0]
	sh.slab = sh.slab[1:]
	return s
}

// How many sources are looked at when another comes: enough that the idle ones
// go sooner than new ones come, and more if there is no room.
const (
	lookNormally = 2
	lookWhenFull = 32
)

// room makes room for another source. It forgets some that have been idle for a
// while; if all is full, one that has not, but has no connections.
func (sh *shard) room(now instant) bool {
	looks := lookNormally
	if len(sh.ring) >= sh.max {
		looks = lookWhenFull
	}
	var victim *source
	for range min(looks, len(sh.ring)) {
		if sh.hand >= len(sh.ring) {
			sh.hand = 0
		}
		switch s := sh.ring[sh.hand]; {
		case s.sources > 0 || !s.empty():
			sh.hand++
		case s.idle(now) && now-s.seen >= instant(keep):
			sh.forget(s)
		default:
			if victim == nil || better(s, victim, now) {
				victim = s
			}
			sh.hand++
		}
	}
	if len(sh.ring) < sh.max {
		return true
	}
	if victim != nil {
		sh.forget(victim)
	}
	return len(sh.ring) < sh.max
}

// better says whether a is rather to be forgotten than b.
func better(a, b *source, now instant) bool {
	if x, y := a.idle(now), b.idle(now); x != y {
		return x
	}
	return a.seen < b.seen
}

// forget forgets a source without connections, or a site without sources.
func (sh *shard) forget(s *source) {
	last := sh.ring[len(sh.ring)-1]
	sh.ring[s.at], last.at = last, s.at
	sh.ring[len(sh.ring)-1] = nil
	sh.ring = sh.ring[:len(sh.ring)-1]
	if s.isSite {
		delete(sh.sites, s.key)
	} else {
		delete(sh.sources, s.key)
		if s.site != nil {
			s.site.sources--
		}
	}
	s.site = nil
	sh.spare = append(sh.spare, s)
}

// levels calls f for a source and its site, until it returns false.
func (s *source) levels(f func(*level) bool) bool {
	if s == nil {
		return true
	}
	return f(&s.level) && (s.site == nil || f(&s.site.level))
}
