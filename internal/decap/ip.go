package decap

import "encoding/binary"

// IP protocols (IANA, Protocol Numbers).
const (
	protoHopByHop = 0
	protoIPv4     = 4
	protoUDP      = 17
	protoIPv6     = 41
	protoRouting  = 43
	protoFragment = 44
	protoGRE      = 47
	protoAH       = 51
	protoDstOpts  = 60
	protoMobility = 135
)

// mapped is the prefix of IPv4-mapped IPv6 addresses (RFC 4291 §2.5.5.2).
var mapped = [16]byte{10: 0xff, 11: 0xff}

// ip reads an IPv4 or IPv6 packet.
func ip(b []byte, d *Datagram, depth int) Reason {
	if len(b) < 1 {
		return Truncated
	}
	switch b[0] >> 4 {
	case 4:
		return ip4(b, d, depth)
	case 6:
		return ip6(b, d, depth)
	}
	return Link
}

// ip4 reads an IPv4 packet.
func ip4(b []byte, d *Datagram, depth int) Reason {
	if len(b) < 20 {
		return Truncated
	}
	header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if total == 0 { // the network card will segment it
		total = len(b)
	}
	switch {
	case header < 20 || total < header:
		return Malformed
	case len(b) < header:
		return Truncated
	}
	fragment := binary.BigEndian.Uint16(b[6:])
	if fragment&0x1fff != 0 {
		return Fragment
	}
	d.Src.IP, d.Dst.IP = mapped, mapped
	copy(d.Src.IP[12:], b[12:16])
	copy(d.Dst.IP[12:], b[16:20])
	d.ECN = ECN(b[1] & 3)
	return transport(b[9], b[header:min(total, len(b))], total-header, d, depth)
}

// ip6 reads an IPv6 packet.
func ip6(b []byte, d *Datagram, depth int) Reason {
	if len(b) < 40 {
		return Truncated
	}
	next, whole := b[6], int(binary.BigEndian.Uint16(b[4:]))
	if whole == 0 { // a jumbogram (RFC 2675), or the network card will segment it
		whole = len(b) - 40
	}
	d.Src.IP, d.Dst.IP = [16]byte(b[8:]), [16]byte(b[24:])
	d.ECN = ECN(b[1] >> 4 & 3)
	b = b[40:min(40+whole, len(b))]
	for range maxHeaders {
		n := 0
		switch next {
		case protoHopByHop, protoRouting, protoDstOpts, protoMobility:
			if len(b) < 8 {
				return Truncated
			}
			n = 8 + 8*int(b[1])
		case protoAH:
			if len(b) < 8 {
				return Truncated
			}
			n = 8 + 4*int(b[1])
		case protoFragment: // RFC 8200 §4.5
			if len(b) < 8 {
				return Truncated
			}
			if binary.BigEndian.Uint16(b[2:])&^7 != 0 {
				return Fragment
			}
			n = 8
		default:
			return transport(next, b, whole, d, depth)
		}
		if len(b) < n {
			return Truncated
		}
		next, b, whole = b[0], b[n:], whole-n
	}
	return Depth
}

// transport reads a UDP datagram, or the packet in a tunnel.
func transport(proto byte, b []byte, whole int, d *Datagram, depth int) Reason {
	if proto == protoUDP {
		return udp(b, whole, d, depth)
	}
	if depth >= maxTunnels {
		return Depth
	}
	switch proto {
	case protoIPv4, protoIPv6:
		return ip(b, d, depth+1)
	case protoGRE:
		return gre(b, d, depth+1)
	}
	return NotUDP
}

// gre reads the packet in GRE version 0 (RFC 2784, RFC 2890).
func gre(b []byte, d *Datagram, depth int) Reason {
	if len(b) < 4 {
		return Truncated
	}
	if b[1]&7 != 0 { // version 1 belongs to PPTP
		return NotUDP
	}
	header := 4
	for _, flag := range [...]byte{0x80, 0x20, 0x10} { // checksum, key, sequence number
		if b[0]&flag != 0 {
			header += 4
		}
	}
	return after(b, 2, header, d, depth)
}
