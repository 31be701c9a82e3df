package quota

import (
	"math"
	"net/netip"
)

// never is an instant before all others.
const never = math.MinInt64 / 2

// key is the masked address of a source or a site: 16 bytes, with IPv4 mapped into
// IPv6.
type key [16]byte

// mask returns the key of the first bits of an address.
func mask(addr netip.Addr, bits int) key {
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

// prefix is the inverse of mask.
func (k key) prefix(v4bits, v6bits int) netip.Prefix {
	addr := netip.AddrFrom16(k).Unmap()
	if addr.Is4() {
		return netip.PrefixFrom(addr, v4bits)
	}
	return netip.PrefixFrom(addr, v6bits)
}

// source is a source or a site. Its shard's lock guards it.
type source struct {
	level
	key        key
	at         uint32 // index in the shard's ring
	isSite     bool
	site       *source // the site of a source; nil: none
	sources    int32   // of a site: the number of its sources that are remembered
	answers    bucket  // refusals that were sent
	seen       instant // when it was looked up last
	reported   instant // when the last event about it was reported
	turnedAway instant // until when the enforcer drops its attempts
	admitted   uint64
	refused    uint64
	dropped    uint64
}

// levels yields the levels of a source and of its site. It yields nothing for nil.
func (s *source) levels(yield func(*level) bool) {
	if s != nil && yield(&s.level) && s.site != nil {
		yield(&s.site.level)
	}
}

// exempt reports whether no limits hold for the source.
func (s *source) exempt() bool { return s != nil && s.limits.exempt }
