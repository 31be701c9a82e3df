package tunnel

import (
	"encoding/binary"
	"net/netip"
)

// A tunnel has an address within 100::/8, which is reserved (RFC 4291 §2.4) and no host has: it
// holds the discard prefix (RFC 6666). The next 56 bits are the number of the tunnel. The last 64
// bits are the source of the client: the first 64 bits of an IPv6 address, or 0000:ffff and an
// IPv4 address. The port is the client's.
const (
	reserved = 0x01 << numberBits
	fromIPv4 = 0x0000ffff << 32
	// numberBits is the length of a number. Nobody opens so many tunnels.
	numberBits = 56
)

// Address returns the address that stands for a tunnel from a client. Whoever numbers the tunnels
// uses no number twice, so that no tunnel is taken for another one that has ended.
func Address(client netip.AddrPort, number uint64) netip.AddrPort {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], reserved|number&(1<<numberBits-1))
	if addr := client.Addr().Unmap(); addr.Is4() {
		v4 := addr.As4()
		binary.BigEndian.PutUint64(b[8:], fromIPv4|uint64(binary.BigEndian.Uint32(v4[:])))
	} else {
		v6 := addr.As16()
		copy(b[8:], v6[:8])
	}
	return netip.AddrPortFrom(netip.AddrFrom16(b), client.Port())
}

// IsAddress says whether an address stands for a tunnel.
func IsAddress(a netip.Addr) bool {
	if !a.Is6() {
		return false
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:])>>numberBits == reserved>>numberBits
}

// Source returns the source of the client of a tunnel: an IPv4 address, or an IPv6 address of
// which only the first 64 bits are known and the others are 0. It returns any other address as
// it is.
func Source(a netip.Addr) netip.Addr {
	if !IsAddress(a) {
		return a
	}
	b := a.As16()
	if binary.BigEndian.Uint64(b[8:])>>32 == fromIPv4>>32 {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	var out [16]byte
	copy(out[:8], b[8:])
	return netip.AddrFrom16(out)
}
