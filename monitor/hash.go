package monitor

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
)

// hasher hashes the keys that are looked up for each packet. hash/maphash does the same for any type, and takes
// longer. The hash is that of Go's maps on processors without AES: products of the key's
// words and of two random numbers, which strangers, who choose most keys, do not know.
type hasher struct{ a, b uint64 }

// newHasher returns a hasher with random numbers of its own.
func newHasher() hasher { return hasher{rand.Uint64() | 1, rand.Uint64() | 1} }

// mix returns a hash of two words.
func (h hasher) mix(x, y uint64) uint64 {
	hi, lo := bits.Mul64(x^h.a, y^h.b)
	return hi ^ lo
}

// fold returns 32 bits of a hash that are good for a table of any size: the low bits of a product
// depend on few bits of the port.
func fold(hash uint64) uint32 {
	const golden = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio
	return uint32(hash * golden >> 32)
}

// address hashes an address.
func (h hasher) address(ip *[16]byte) uint64 {
	return h.mix(binary.LittleEndian.Uint64(ip[:]), binary.LittleEndian.Uint64(ip[8:]))
}

// endpoint hashes an endpoint.
func (h hasher) endpoint(e endpoint) uint32 {
	return fold(h.mix(h.address(&e.IP), uint64(e.Port)))
}

// tuple hashes two endpoints.
func (h hasher) tuple(k *tuple) uint32 {
	return fold(h.mix(h.mix(h.address(&k.a.IP), h.address(&k.b.IP)^h.b>>1), uint64(k.a.Port)<<16|uint64(k.b.Port)))
}

// source hashes a key of the sources table.
func (h hasher) source(k sourceKey) uint32 { return h.tuple(&tuple{k.client, k.server}) }

// anyKey returns a function that hashes keys of any type.
func anyKey[K comparable]() func(K) uint32 {
	seed := maphash.MakeSeed()
	return func(key K) uint32 { return uint32(maphash.Comparable(seed, key)) }
}
