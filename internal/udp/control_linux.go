package udp

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// control is the memory for the control messages of one message (cmsg(3)), aligned as the
// kernel needs it. On a socket for both IP versions they have 192 bytes together.
type control struct {
	_ [0]uint64
	b [256]byte
}

const ecnMask = 3

// parseControl parses the control messages of a message into m. dropped is how many packets
// the kernel has dropped so far, if ok is true.
func parseControl(b []byte, m *Message) (dropped uint32, ok bool) {
	for len(b) >= unix.CmsgLen(0) {
		h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(b)))
		length := int(h.Len)
		if length < unix.CmsgLen(0) || length > len(b) {
			return dropped, ok
		}
		data := b[unix.CmsgLen(0):length]
		switch {
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_RXQ_OVFL && len(data) >= 4:
			dropped, ok = binary.NativeEndian.Uint32(data), true
		case h.Level == unix.IPPROTO_UDP:
			parseSegment(h.Type, data, m)
		case h.Level == unix.IPPROTO_IP:
			parseIPv4(h.Type, data, m)
		case h.Level == unix.IPPROTO_IPV6:
			parseIPv6(h.Type, data, m)
		}
		b = b[min(unix.CmsgSpace(length-unix.CmsgLen(0)), len(b)):]
	}
	return dropped, ok
}

// parseSegment parses UDP_GRO, an int, of a message that was read, or UDP_SEGMENT, 16 bits, of
// a message to write.
func parseSegment(kind int32, data []byte, m *Message) {
	switch {
	case kind == unix.UDP_GRO && len(data) >= 4:
		m.SegmentSize = int(binary.NativeEndian.Uint32(data))
	case kind == unix.UDP_SEGMENT && len(data) >= 2:
		m.SegmentSize = int(binary.NativeEndian.Uint16(data))
	}
}

// parseIPv4 parses IP_TOS, IP_TTL, which is an int, and IP_PKTINFO, which is an int with the
// interface index, 4 bytes with the local address, and 4 bytes with the packet's destination.
func parseIPv4(kind int32, data []byte, m *Message) {
	switch {
	case kind == unix.IP_TOS && len(data) >= 1:
		m.ECN = data[0] & ecnMask
	case kind == unix.IP_TTL && len(data) >= 4:
		setHopLimit(m, data)
	case kind == unix.IP_PKTINFO && len(data) >= 12:
		addr := netip.AddrFrom4([4]byte(data[8:12]))
		if addr.IsUnspecified() { // a message to write has its source in the local address
			addr = netip.AddrFrom4([4]byte(data[4:8]))
		}
		setLocal(m, addr)
	}
}

// parseIPv6 parses IPV6_TCLASS and IPV6_HOPLIMIT, each an int, and IPV6_PKTINFO, which is 16
// bytes with the address and an int with the interface index.
func parseIPv6(kind int32, data []byte, m *Message) {
	switch {
	case kind == unix.IPV6_TCLASS && len(data) >= 4:
		m.ECN = byte(binary.NativeEndian.Uint32(data)) & ecnMask
	case kind == unix.IPV6_HOPLIMIT && len(data) >= 4:
		setHopLimit(m, data)
	case kind == unix.IPV6_PKTINFO && len(data) >= 16:
		setLocal(m, netip.AddrFrom16([16]byte(data[:16])).Unmap())
	}
}

// setHopLimit parses an int. A neighbour may send a packet with hop limit 0. Message.HopLimit is
// 1 then, since 0 means that it is not known.
func setHopLimit(m *Message, data []byte) {
	m.HopLimit = max(byte(binary.NativeEndian.Uint32(data)), 1)
}

// setLocal sets the local address, unless it cannot be the source of an answer.
func setLocal(m *Message, addr netip.Addr) {
	if !addr.IsMulticast() && !addr.IsUnspecified() && addr != netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		m.Local = addr
	}
}

// putControl appends the control messages of a message to write to b, which must have enough
// capacity, and returns their length.
func putControl(b []byte, m *Message) int {
	if m.SegmentSize > 0 {
		b = appendControl(b, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2)
		binary.NativeEndian.PutUint16(b[len(b)-unix.CmsgSpace(2)+unix.CmsgLen(0):], uint16(m.SegmentSize))
	}
	return len(putAncillary(b, m, 4))
}

// putAncillary appends the ECN mark, the hop limit and the local address. tosLen is the length
// of the ECN mark of IPv4 in bytes.
func putAncillary(b []byte, m *Message, tosLen int) []byte {
	v4 := m.Remote.Addr().Is4()
	if m.ECN != 0 {
		level, kind, n := unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 4
		if v4 {
			level, kind, n = unix.IPPROTO_IP, unix.IP_TOS, tosLen
		}
		b = appendByte(b, level, kind, n, m.ECN)
	}
	if m.HopLimit != 0 {
		level, kind := unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT
		if v4 {
			level, kind = unix.IPPROTO_IP, unix.IP_TTL
		}
		b = appendByte(b, level, kind, 4, m.HopLimit)
	}
	if !m.Local.IsValid() || m.Local.Is4() != v4 {
		return b
	}
	if v4 {
		b = appendControl(b, unix.IPPROTO_IP, unix.IP_PKTINFO, 12)
		data := b[len(b)-unix.CmsgSpace(12)+unix.CmsgLen(0):]
		addr := m.Local.As4()
		copy(data[4:], addr[:]) // the source of a message to write
		copy(data[8:], addr[:]) // the destination of a message that was read
		return b
	}
	b = appendControl(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, 20)
	addr := m.Local.As16()
	copy(b[len(b)-unix.CmsgSpace(20)+unix.CmsgLen(0):], addr[:])
	return b
}

// appendByte appends a control message with a number in n bytes, 1 or 4.
func appendByte(b []byte, level, kind, n int, value byte) []byte {
	b = appendControl(b, level, kind, n)
	data := b[len(b)-unix.CmsgSpace(n)+unix.CmsgLen(0):]
	if n == 1 {
		data[0] = value
	} else {
		binary.NativeEndian.PutUint32(data, uint32(value))
	}
	return b
}

// appendControl appends a control message with n bytes of zeros.
func appendControl(b []byte, level, kind, n int) []byte {
	at := len(b)
	b = b[:at+unix.CmsgSpace(n)]
	clear(b[at:])
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[at]))
	h.Level, h.Type = int32(level), int32(kind)
	h.SetLen(unix.CmsgLen(n))
	return b
}

// withScope adds the index of an interface to a link-local address.
func withScope(addr netip.Addr, scope uint32) netip.Addr {
	if scope == 0 {
		return addr
	}
	return addr.WithZone(strconv.FormatUint(uint64(scope), 10))
}

// scopeOf returns the interface index of a link-local address, or 0 if it has none.
func scopeOf(addr netip.Addr) uint32 {
	if addr.Zone() == "" {
		return 0
	}
	scope, err := strconv.ParseUint(addr.Zone(), 10, 32)
	if err != nil {
		return scopeByName(addr.Zone())
	}
	return uint32(scope)
}
