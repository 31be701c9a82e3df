package decap

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Endpoint is an address and a port, comparable and quick to hash. IPv4
// addresses are mapped into IPv6.
type Endpoint struct {
	IP   [16]byte
	Port uint16
}

// AddrPort returns e as package netip has it.
func (e Endpoint) AddrPort() netip.AddrPort {
	return netip.AddrPortFrom(e.Addr(), e.Port)
}

// Addr returns the address alone.
func (e Endpoint) Addr() netip.Addr { return netip.AddrFrom16(e.IP).Unmap() }

// String returns address and port.
func (e Endpoint) String() string { return e.AddrPort().String() }

// EndpointOf is the inverse of [Endpoint.AddrPort].
func EndpointOf(a netip.AddrPort) Endpoint { return Endpoint{a.Addr().As16(), a.Port()} }

// Datagram is a UDP datagram in a frame.
type Datagram struct {
	Src, Dst Endpoint
	// Payload is what of the payload was captured, a part of the frame.
	Payload []byte
	// Length is that of the whole payload. It is more than len(Payload) if the
	// frame was cut, or the datagram comes in fragments.
	Length int
}

// Reason says why a frame has no datagram to look at.
type Reason uint8

// The reasons.
const (
	Found      Reason = iota // there is one
	Truncated                // the frame ends within a header
	Link                     // the link layer, or what it carries, is none of those that are read
	NotUDP                   // another transport
	Fragment                 // not the first fragment, so without ports
	Malformed                // lengths do not add up
	Depth                    // more headers or tunnels than are read
	NumReasons int    = iota
)

var reasonNames = [NumReasons]string{"found", "truncated", "link", "not_udp", "fragment", "malformed", "depth"}

// String returns a name fit for a metric's label.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// maxTunnels and maxHeaders bound what is unwrapped.
const (
	maxTunnels = 4
	maxHeaders = 8
)

// Ports of the tunnels over UDP.
const (
	portVXLAN  = 4789 // RFC 7348 §8
	portGeneve = 6081 // RFC 8926 §6
)

// UDP finds the datagram in a frame with this link layer.
func UDP(link LinkType, frame []byte, d *Datagram) Reason {
	return linkLayer(link, frame, d, 0)
}

// udp reads a UDP header, and what is in a tunnel. whole is the length that IP
// states.
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
		*d = outer // what is inside is no datagram, or it is no tunnel
	}
	return Found
}

// tunnel reads what VXLAN or Geneve carries.
func tunnel(d *Datagram, depth int) Reason {
	b := d.Payload
	if depth >= maxTunnels {
		return Depth
	}
	if len(b) < 8 {
		return Truncated
	}
	if d.Dst.Port == portVXLAN {
		if b[0] != 0x08 { // the flag of a valid VNI, and no other
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
