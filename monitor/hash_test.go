package monitor

import "testing"

// TestHashSpreads checks that similar keys do not meet in the same bucket much more often than by chance:
// neighbouring addresses, ports of one host, and the two directions of a source key.
func TestHashSpreads(t *testing.T) {
	const n = 1 << 14
	h := newHasher()
	keyOf := func(i int, port bool) (k tuple) {
		k.a.IP, k.b.IP = [16]byte{10: 0xff, 11: 0xff, 12: 10}, [16]byte{0x20, 0x01, 15: 1}
		if k.b.Port = 443; port {
			k.a.Port = uint16(i)
		} else {
			k.a.IP[14], k.a.IP[15] = byte(i>>8), byte(i)
		}
		return k
	}
	for name, hash := range map[string]func(i int) uint32{
		"addresses": func(i int) uint32 { k := keyOf(i, false); return h.tuple(&k) },
		"ports":     func(i int) uint32 { k := keyOf(i, true); return h.tuple(&k) },
		"endpoints": func(i int) uint32 { return h.endpoint(keyOf(i, true).a) },
		"servers": func(i int) uint32 {
			k := keyOf(i/2, false)
			if i%2 == 0 {
				return h.source(sourceKey{client: k.a, server: k.b})
			}
			return h.source(sourceKey{client: k.b, server: k.a})
		},
	} {
		var buckets [n]int
		most := 0
		for i := range n {
			b := &buckets[hash(i)%n]
			*b++
			most = max(most, *b)
		}
		if most > 16 { // by chance about 7
			t.Errorf("%s: %d of %d keys in one of as many buckets", name, most, n)
		}
	}
}
