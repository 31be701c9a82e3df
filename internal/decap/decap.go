package decap

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Endpoint is an address and a port. It can be a map's key. IPv4 addresses are mapped to
// IPv6.
type Endpoint struct {
	IP   [16]byte
	Port uint16
}

// AddrPort returns e as a [netip.AddrPort].
func (e Endpoint) AddrPort() netip.AddrPort {
	return netip.AddrPortFrom(e.Addr(), e.Port)
}

// Addr returns the address.
func (e Endpoint) Addr() netip.Addr { return netip.AddrFrom16(e.IP).Unmap() }

// String returns the address and the port.
func (e Endpoint) String() string { return e.AddrPort().String() }

// EndpointOf is the inverse of [Endpoint.AddrPort].
func EndpointOf(a netip.AddrPort) Endpoint { return Endpoint{a.Addr().As16(), a.Port()} }

// Datagram is a UDP datagram in a frame.
type Datagram struct {
	Src, Dst Endpoint
	// Payload is the captured part of the payload. It is a slice of the frame.
	Payload []byte
	// Length is the length of the whole payload in bytes. It is more than
	// len(Payload) if the frame was cut or has only the first fragment.
	Length int
	// ECN is the ECN codepoint of the IP header, in a tunnel of the inner one.
	ECN ECN
}

// ECN is an ECN codepoint: the low two bits of IPv4's TOS byte, and of IPv6's traffic class.
type ECN uint8

// The codepoints (RFC 3168 §5).
const (
	NotECT ECN = iota
	ECT1
	ECT0
	CE
)

// Reason says why no datagram was found in a frame.
type Reason uint8

// The reasons.
const (
	Found      Reason = iota // a datagram was found
	Truncated                // the frame ends within a header
	Link                     // an unknown link layer or network protocol
	NotUDP                   // another transport protocol
	Fragment                 // a fragment other than the first, which has no ports
	Malformed                // invalid lengths
	Depth                    // too many headers or tunnels
	NumReasons int    = iota
)

var reasonNames = [NumReasons]string{"found", "truncated", "link", "not_udp", "fragment", "malformed", "depth"}

// String returns the name, which can be a metric's label.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Limits of nested tunnels, and of headers in a row.
const (
	maxTunnels = 4
	maxHeaders = 8
)

// Ports of the tunnels over UDP.
const (
	portVXLAN  = 4789 // RFC 7348 §8
	portGeneve = 6081 // RFC 8926 §6
)

// UDP finds the datagram in a frame and sets d. If it does not return [Found] d is
// undefined.
func UDP(link LinkType, frame []byte, d *Datagram) Reason {
	return linkLayer(link, frame, d, 0)
}

// udp reads a UDP header, and the datagram in a tunnel if there is one. whole is the
// length in the IP header.
func udp(b []byte, whole int, d *Datagram, depth int) Reason {
	if len(b) < 8 {
		return Truncated
	}
	d.Src.Port, d.Dst.Port = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	length := int(binary.BigEndian.Uint16(b[4:]))
	if length == 0 { // more than 65 535 bytes, by GRO or a jumbogram (RFC 2675 §4)
		length = whole
	}
	if length < 8 {
		return Malformed
	}
	d.Length = length - 8
	d.Payload = b[8:min(length, len(b))]
	if d.Dst.Port != portVXLAN && d.Dst.Port != portGeneve {
		return Found
	}
	outer := *d
	if tunnel(d, depth) != Found {
		*d = outer // not a tunnel, or no datagram in it
	}
	return Found
}

// tunnel reads the frame in a VXLAN or Geneve datagram.
func tunnel(d *Datagram, depth int) Reason {
	b := d.Payload
	if depth >= maxTunnels {
		return Depth
	}
	if len(b) < 8 {
		return Truncated
	}
	if d.Dst.Port == portVXLAN {
		if b[0] != 0x08 { // only the flag of a valid VNI is set
			return Malformed
		}
		return ethernet(b[8:], d, depth+1)
	}
	header := 8 + 4*int(b[0]&0x3f)
	if b[0]>>6 != 0 || len(b) < header {
		return Malformed
	}
	return payload(binary.BigEndian.Uint16(b[2:]), b[header:], d, depth+1)
}
