package datapath

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// storeAddr stores an address, or zeros, where the program may be reading: IPv4 in the last word. The
// words are aligned to eight bytes.
func storeAddr(to *[4]uint32, a netip.Addr) {
	b := a.As16()
	if a.Is4() {
		clear(b[:12])
	}
	words := (*[2]uint64)(unsafe.Pointer(to))
	for i := range words {
		atomic.StoreUint64(&words[i], binary.NativeEndian.Uint64(b[8*i:]))
	}
}

// readAddr reads what storeAddr has stored.
func readAddr(words *[4]uint32, family uint16) netip.Addr {
	var b [16]byte
	for i, word := range words {
		binary.NativeEndian.PutUint32(b[4*i:], word)
	}
	if family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return netip.AddrFrom16(b)
}

// storePair stores two numbers that follow each other, of which the first one is aligned to four bytes.
func storePair(to *uint16, first, second uint16) {
	var b [4]byte
	binary.NativeEndian.PutUint16(b[:], first)
	binary.NativeEndian.PutUint16(b[2:], second)
	atomic.StoreUint32((*uint32)(unsafe.Pointer(to)), binary.NativeEndian.Uint32(b[:]))
}

// familyOf returns the family of an address.
func familyOf(a netip.Addr) uint16 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
