// Package packet builds Ethernet frames with UDP datagrams for tests.
package packet

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// DontFragment is the DF flag in Frame.Flags (RFC 791 §3.1).
const DontFragment = 0x4000

// Frame is a UDP datagram over IP over Ethernet. The zero values of the fields after Flags give a
// valid frame.
type Frame struct {
	Src, Dst netip.AddrPort // of one address family
	TTL, TOS byte           // hop limit and traffic class of IPv6
	Payload  []byte
	ID       uint16 // flow label of IPv6
	Flags    uint16 // of IPv4: the flags and the fragment offset

	NoChecksum bool // UDP checksum 0
	Options    bool // IPv4 options
	VLAN       bool // VLAN tag (802.1Q)
	Pad        int  // bytes of padding after the packet
	Next       byte // next header of IPv6; 0: UDP
	UDPLen     int  // length in the UDP header; 0: the correct one
}

// Build returns the frame with all checksums, from the MAC address src to dst.
func (f *Frame) Build(src, dst net.HardwareAddr) []byte {
	udp := binary.BigEndian.AppendUint16(nil, f.Src.Port())
	udp = binary.BigEndian.AppendUint16(udp, f.Dst.Port())
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(f.Payload)))
	if f.UDPLen != 0 {
		binary.BigEndian.PutUint16(udp[4:], uint16(f.UDPLen))
	}
	udp = append(udp, 0, 0)
	udp = append(udp, f.Payload...)
	pseudo := append(f.Src.Addr().AsSlice(), f.Dst.Addr().AsSlice()...)
	pseudo = append(pseudo, 0, 17, 0, 0)
	binary.BigEndian.PutUint16(pseudo[len(pseudo)-2:], uint16(len(udp)))
	if !f.NoChecksum {
		sum := checksum(append(pseudo, udp...))
		if sum == 0 {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(udp[6:], sum)
	}
	b := append(append([]byte(nil), dst...), src...)
	if f.VLAN {
		b = append(b, 0x81, 0, 0, 5)
	}
	if f.Src.Addr().Is4() {
		b = append(append(b, 8, 0), f.ipv4(len(udp))...)
	} else {
		b = append(append(b, 0x86, 0xdd), f.ipv6(len(udp))...)
	}
	b = append(b, udp...)
	return append(b, make([]byte, f.Pad)...)
}

func (f *Frame) ipv4(rest int) []byte {
	ip := []byte{0x45, f.TOS, 0, 0, byte(f.ID >> 8), byte(f.ID), byte(f.Flags >> 8), byte(f.Flags), f.TTL, 17, 0, 0}
	ip = append(append(ip, f.Src.Addr().AsSlice()...), f.Dst.Addr().AsSlice()...)
	if f.Options {
		ip[0] = 0x46
		ip = append(ip, 1, 1, 1, 0)
	}
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+rest))
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	return ip
}

func (f *Frame) ipv6(rest int) []byte {
	next := f.Next
	if next == 0 {
		next = 17
	}
	ip := []byte{0x60 | f.TOS>>4, f.TOS << 4, byte(f.ID >> 8), byte(f.ID), byte(rest >> 8), byte(rest), next, f.TTL}
	return append(append(ip, f.Src.Addr().AsSlice()...), f.Dst.Addr().AsSlice()...)
}

// checksum returns the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum>>16 > 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
