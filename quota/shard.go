package quota

import (
	"sync"
	"time"
)

const (
	// keep is how long an idle source is remembered.
	keep = time.Minute

	// slabSize is the number of sources that are allocated at once.
	slabSize = 32

	// room looks at lookNormally sources for each new one, so that idle sources
	// are forgotten faster than new ones come, and at lookWhenFull if the shard is
	// full.
	lookNormally = 2
	lookWhenFull = 32
)

// shard holds a part of the sources. A source is in the same shard as its site.
type shard struct {
	mu       sync.Mutex // guards the following
	max      int
	sources  map[key]*source
	sites    map[key]*source
	ring     []*source // all sources and sites, in no order
	hand     int       // index of the next one in ring to look at
	spare    []*source // to be used again
	slab     []source  // not used yet
	slots    *Slot     // a list of all slots, including those of sources that are not remembered
	attempts attemptTable
	refusals refusals
	_        [64]byte
}

// get returns the source or the site with a key, or nil.
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

// add makes a source or a site. It returns nil if there is no room.
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

// room makes room for another source. It forgets sources that have been idle for a
// while. If the shard is full, it also forgets one that has not been idle for long
// or that is not idle, but has no connections.
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
			if victim == nil || forgetBefore(s, victim, now) {
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

// forgetBefore reports whether a should be forgotten before b.
func forgetBefore(a, b *source, now instant) bool {
	if x, y := a.idle(now), b.idle(now); x != y {
		return x
	}
	return a.seen < b.seen
}

// forget removes a source without connections, or a site without sources.
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
