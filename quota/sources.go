package quota

import (
	"hash/maphash"
	"net/netip"

	"github.com/gaissmai/bart"
)

// maxShards is the maximum number of shards.
const maxShards = 64

// sourceTable holds all sources and sites that are remembered, in shards that are
// locked separately.
type sourceTable struct {
	conf      *Config
	source    *limits
	site      *limits
	overrides bart.Table[*limits]
	seed      maphash.Seed
	shards    []shard
}

func newSourceTable(conf *Config) *sourceTable {
	t := &sourceTable{
		conf:   conf,
		source: compile(conf.Source, conf.RetrySource),
		site:   compile(conf.Site, 0),
		seed:   maphash.MakeSeed(),
	}
	for _, o := range conf.Overrides {
		prefix, _ := plainPrefix(o.Prefix) // has been validated
		t.overrides.Insert(prefix, o.compile(conf))
	}
	n := 1
	for n < maxShards && conf.MaxSources >= n*2*maxShards {
		n *= 2
	}
	t.shards = make([]shard, n)
	for i := range t.shards {
		sh := &t.shards[i]
		sh.max = conf.MaxSources / n
		sh.sources, sh.sites = make(map[key]*source), make(map[key]*source)
	}
	return t
}

// limitsPackets reports whether any source or site has a packet rate.
func (t *sourceTable) limitsPackets() bool {
	for _, l := range t.overrides.All() {
		if l.packet.limited() {
			return true
		}
	}
	return t.source.packet.limited() || t.site.packet.limited()
}

// siteBits returns the number of bits of an address that are its site. 0 means that
// there are no sites.
func (t *sourceTable) siteBits(addr netip.Addr) int {
	if addr.Is4() {
		return max(t.conf.IPv4SiteBits, 0)
	}
	return max(t.conf.IPv6SiteBits, 0)
}

// sourceBits returns the number of bits of an address that are its source.
func (t *sourceTable) sourceBits(addr netip.Addr) int {
	if addr.Is4() {
		return t.conf.IPv4Bits
	}
	return t.conf.IPv6Bits
}

// of returns the source of an address, which is plain. It returns the zero Prefix if the
// address is not valid.
func (t *sourceTable) of(addr netip.Addr) netip.Prefix {
	prefix, err := addr.Prefix(t.sourceBits(addr))
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// prefix returns the prefix of the source with a key.
func (t *sourceTable) prefix(k key) netip.Prefix { return k.prefix(t.conf.IPv4Bits, t.conf.IPv6Bits) }

// place is where the table holds the source and the site of an address. It is
// computed once for each attempt, connection or request.
type place struct {
	addr    netip.Addr
	shard   *shard
	source  key
	site    key
	hasSite bool
}

// place returns where the source of an address is. The address is plain.
func (t *sourceTable) place(addr netip.Addr) place {
	p := place{addr: addr, source: mask(addr, t.sourceBits(addr))}
	outer := p.source
	if bits := t.siteBits(addr); bits > 0 {
		p.site, p.hasSite = mask(addr, bits), true
		outer = p.site
	}
	p.shard = &t.shards[maphash.Bytes(t.seed, outer[:])%uint64(len(t.shards))]
	return p
}

// lookupLocked returns the source at a place, which it makes if it is not
// remembered; or nil if there is no room for it.
func (t *sourceTable) lookupLocked(at *place, now instant) *source {
	if s := at.shard.get(at.source, false, now); s != nil {
		return s
	}
	return t.addLocked(at, now)
}

// addLocked makes the source at a place, and its site.
func (t *sourceTable) addLocked(at *place, now instant) *source {
	sh := at.shard
	l, ok := t.overrides.Lookup(at.addr)
	if !ok {
		l = t.source
	}
	var site *source
	if at.hasSite && !l.exempt && !l.shared {
		if site = sh.get(at.site, true, now); site == nil {
			site = sh.add(at.site, nil, true, t.site, now)
		}
		if site == nil {
			return nil
		}
		site.sources++ // so that add does not forget it
		defer func() { site.sources-- }()
	}
	return sh.add(at.source, site, false, l, now)
}

// end ends the connections of the addresses for which of returns true, and returns
// their number.
func (t *sourceTable) end(of func(netip.Addr) bool) (ended int) {
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		for slot := sh.slots; slot != nil; slot = slot.next {
			if of(slot.client) && slot.endLocked() {
				ended++
			}
		}
		sh.mu.Unlock()
	}
	return ended
}

// count returns the numbers of sources and of sites that are remembered.
func (t *sourceTable) count() (sources, sites int) {
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		sources += len(sh.sources)
		sites += len(sh.sites)
		sh.mu.Unlock()
	}
	return sources, sites
}

// top implements [Controller.Top].
func (t *sourceTable) top(n int) []SourceStats {
	if n <= 0 {
		return nil
	}
	var top []SourceStats // candidates, of which there may be more than n
	var nth *SourceStats  // of the last cut; later candidates must come before it
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		for _, s := range sh.ring {
			if s.isSite {
				continue
			}
			if stats := t.statsOf(s); nth == nil || before(stats, *nth) < 0 {
				top = append(top, stats)
			}
		}
		sh.mu.Unlock()
		if len(top)/2 >= n {
			top = first(top, n)
			last := top[n-1]
			nth = &last
		}
	}
	return first(top, n)
}

func (t *sourceTable) statsOf(s *source) SourceStats {
	return SourceStats{
		Source:      t.prefix(s.key),
		Connections: int(s.count[stageLive]), HalfOpen: s.halfOpen(),
		Admitted: s.admitted, Refused: s.refused, Dropped: s.dropped,
	}
}
