package traffic

import (
	"encoding/binary"
	"net/netip"

	"github.com/quicway/quicway/internal/test/packet"
)

// ends are the addresses of a client and a server.
type ends [2]netip.AddrPort

// The sides of a flow.
const (
	client = iota
	server
)

// between returns the ends of a new flow to a port of a server. A quarter of the flows has IPv6.
func (g *generator) between(port uint16) ends {
	const clients, servers = 4096, 512
	c, s := uint16(g.random.IntN(clients)), uint16(g.random.IntN(servers))
	from := 32768 + uint16(g.opened%28232) // of those that Linux gives to clients
	if g.random.IntN(4) == 0 {
		return ends{netip.AddrPortFrom(address6(1, c), from), netip.AddrPortFrom(address6(2, s), port)}
	}
	return ends{netip.AddrPortFrom(address4(10, 1, c), from), netip.AddrPortFrom(address4(198, 18, s), port)}
}

func address4(a, b byte, host uint16) netip.Addr {
	return netip.AddrFrom4([4]byte{a, b, byte(host >> 8), byte(host)})
}

func address6(network byte, host uint16) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 5: network, 14: byte(host >> 8), 15: byte(host)})
}

// udp returns a frame with a datagram that a side sends.
func (e ends) udp(from int, data []byte) []byte {
	f := packet.Frame{Src: e[from], Dst: e[1-from], TTL: 63, Payload: data}
	if from == client {
		return f.Build(inside, outside)
	}
	return f.Build(outside, inside)
}

// tcp returns a frame with a segment that a side sends. It has no checksums, as of a network card that
// makes them.
func (e ends) tcp(from int, flags byte, seq, ack uint32, data []byte) []byte {
	const header = 20
	segment := binary.BigEndian.AppendUint16(nil, e[from].Port())
	segment = binary.BigEndian.AppendUint16(segment, e[1-from].Port())
	segment = binary.BigEndian.AppendUint32(segment, seq)
	segment = binary.BigEndian.AppendUint32(segment, ack)
	segment = append(segment, header/4<<4, flags, 0xff, 0xff, 0, 0, 0, 0)
	segment = append(segment, data...)
	src, dst := e[from].Addr(), e[1-from].Addr()
	b := append(append([]byte(nil), outside...), inside...)
	const protocol, ttl = 6, 63
	if src.Is4() {
		b = append(b, 8, 0, 0x45, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(20+len(segment)))
		b = append(b, 0, 0, 0x40, 0, ttl, protocol, 0, 0)
	} else {
		b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(len(segment)))
		b = append(b, protocol, ttl)
	}
	return append(append(append(b, src.AsSlice()...), dst.AsSlice()...), segment...)
}
