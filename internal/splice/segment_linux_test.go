package splice

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// segment is a TCP segment in a frame, as a test builds it. The zero values of the fields after
// Payload give a plain segment.
type segment struct {
	src, dst netip.AddrPort
	seq, ack uint32
	flags    uint16
	window   uint16
	options  []byte // a multiple of 4 bytes
	payload  []byte

	ttl, tos byte   // ttl 0: 64
	frag     uint16 // IPv4: the flags and the fragment offset
	next     byte   // the protocol; 0: TCP
	ipWords  int    // IPv4: words of options
	length   int    // added to the length in the IP header
	offset   int    // added to the data offset, in words
	pad      int    // bytes of padding after the packet
	badSum   bool   // the TCP checksum is wrong
}

// Flags of TCP.
const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
	urg
	ece
	cwr
	ae
)

// stamps returns the option of timestamps.
func stamps(val, ecr uint32) []byte {
	b := []byte{1, 1, 8, 10}
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, val), ecr)
}

// sack returns a SACK option.
func sack(edges ...uint32) []byte {
	b := []byte{1, 1, 5, byte(2 + 4*len(edges))}
	for _, e := range edges {
		b = binary.BigEndian.AppendUint32(b, e)
	}
	return b
}

// build returns the frame, with all checksums.
func (s *segment) build() []byte {
	tcp := binary.BigEndian.AppendUint16(nil, s.src.Port())
	tcp = binary.BigEndian.AppendUint16(tcp, s.dst.Port())
	tcp = binary.BigEndian.AppendUint32(tcp, s.seq)
	tcp = binary.BigEndian.AppendUint32(tcp, s.ack)
	words := 5 + len(s.options)/4 + s.offset
	tcp = binary.BigEndian.AppendUint16(tcp, uint16(words)<<12|s.flags)
	tcp = binary.BigEndian.AppendUint16(tcp, s.window)
	tcp = append(tcp, 0, 0, 0, 0)
	tcp = append(append(tcp, s.options...), s.payload...)
	sum := ^fold(pseudo(s.src.Addr(), s.dst.Addr(), len(tcp)) + sumOf(tcp))
	if s.badSum {
		sum ^= 0x55
	}
	binary.BigEndian.PutUint16(tcp[16:], sum)
	ttl, next := s.ttl, s.next
	if ttl == 0 {
		ttl = 64
	}
	if next == 0 {
		next = 6
	}
	frame := make([]byte, 12, 14+40+len(tcp)+s.pad)
	if s.src.Addr().Is4() {
		frame = append(frame, 8, 0)
		ip := []byte{0x45 + byte(s.ipWords), s.tos, 0, 0, 0x12, 0x34, byte(s.frag >> 8), byte(s.frag), ttl, next, 0, 0}
		ip = append(append(ip, s.src.Addr().AsSlice()...), s.dst.Addr().AsSlice()...)
		ip = append(ip, slices.Repeat([]byte{1}, 4*s.ipWords)...)
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(tcp)+s.length))
		binary.BigEndian.PutUint16(ip[10:], ^fold(sumOf(ip)))
		frame = append(frame, ip...)
	} else {
		frame = append(frame, 0x86, 0xdd)
		frame = append(frame, 0x60|s.tos>>4, s.tos<<4|5, 6, 7)
		frame = binary.BigEndian.AppendUint16(frame, uint16(len(tcp)+s.length))
		frame = append(frame, next, ttl)
		frame = append(append(frame, s.src.Addr().AsSlice()...), s.dst.Addr().AsSlice()...)
	}
	return append(append(frame, tcp...), make([]byte, s.pad)...)
}

// sumOf adds up the 16-bit words of b (RFC 1071).
func sumOf(b []byte) uint64 {
	var sum uint64
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint64(b[i])<<8 | uint64(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint64(b[len(b)-1]) << 8
	}
	return sum
}

// pseudo adds up the words of the pseudo-header.
func pseudo(src, dst netip.Addr, tcp int) uint64 {
	return sumOf(src.AsSlice()) + sumOf(dst.AsSlice()) + 6 + uint64(tcp)
}

// fold makes a sum one word.
func fold(sum uint64) uint16 {
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}
