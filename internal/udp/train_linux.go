package udp

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxGather is how many messages are joined into one train at most.
const maxGather = 16

// train is one or more messages to one address that the kernel gets as one. The kernel
// splits it into datagrams.
type train struct {
	Message      // the first message, without Data
	size    int  // of a datagram
	pieces  int  // how many messages
	length  int  // in bytes
	full    bool // no message can be appended
}

// sizeOf returns the size of the datagrams of a message.
func sizeOf(m *Message) int {
	if m.SegmentSize > 0 {
		return m.SegmentSize
	}
	return len(m.Data)
}

// takes says whether a message can be appended: only the last datagram may be smaller than the
// others.
func (t *train) takes(m *Message) bool {
	size := sizeOf(m)
	return !t.full && t.pieces < maxGather &&
		(size == t.size || m.SegmentSize == 0 && size < t.size) &&
		t.length+len(m.Data) <= min(maxSegments*t.size, maxPayload) &&
		t.Remote == m.Remote && t.Local == m.Local && t.ECN == m.ECN && t.HopLimit == m.HopLimit
}

// append appends a message.
func (t *train) append(m *Message, iovs *[maxGather]unix.Iovec) {
	iov := &iovs[t.pieces]
	iov.Base = unsafe.SliceData(m.Data)
	iov.SetLen(len(m.Data))
	t.pieces++
	t.length += len(m.Data)
	t.full = t.size == 0 || t.length%t.size != 0
}

// datagrams returns the number of datagrams.
func (t *train) datagrams() int {
	if t.size == 0 {
		return 1
	}
	return (t.length + t.size - 1) / t.size
}

// recent holds the index of the latest train by the hash of its address. The train may be one
// to another address with the same hash, or one that has been sent already, so the caller has
// to check it.
type recent [256]uint8

// of returns where the index of the latest train to an address is.
func (r *recent) of(a netip.AddrPort) *uint8 {
	b := a.Addr().As16()
	h := binary.NativeEndian.Uint32(b[12:]) ^ uint32(a.Port())*0x9e3779b1
	return &r[h*0x85ebca6b>>24]
}
