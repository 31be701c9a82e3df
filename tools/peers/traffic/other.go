package traffic

import "encoding/binary"

// Flags of TCP.
const (
	syn = 2
	ack = 16
)

// tls makes the packets of a connection of TLS over TCP.
func (g *generator) tls(yield func([]byte) bool) {
	e := g.between(443)
	var seq [2]uint32
	for i := range seq {
		seq[i] = g.random.Uint32()
	}
	send := func(from int, flags byte, data []byte) {
		yield(e.tcp(from, flags, seq[from], seq[1-from], data))
		seq[from] += uint32(len(data)) + uint32(flags&syn/syn)
	}
	record := func(from int, kind byte, data []byte) {
		head := binary.BigEndian.AppendUint16([]byte{kind, 3, 3}, uint16(len(data)))
		send(from, ack, append(head, data...))
	}
	send(client, syn, nil)
	send(server, syn|ack, nil)
	send(client, ack, nil)
	const handshake, data = 22, 23
	hello, _ := g.hello(tcpHello, g.tcpName())
	record(client, handshake, hello)
	record(server, handshake, g.serverHello())
	record(server, data, g.bytes(900))
	record(client, data, g.bytes(100+g.random.IntN(400)))
	for i := range g.bulk() {
		if g.closing {
			return
		}
		if record(server, data, g.bytes(1400)); i%2 == 1 {
			send(client, ack, nil)
		}
	}
}

// dns makes a question and its answer.
func (g *generator) dns(yield func([]byte) bool) {
	e := g.between(53)
	id := g.bytes(2)
	name := g.tcpName()
	message := func(flags, answers byte, rest ...byte) []byte {
		b := append(append([]byte(nil), id...), flags, 0, 0, 1, 0, answers, 0, 0, 0, 0)
		for _, label := range []string{name[:8], name[9:12], name[13:]} {
			b = append(append(b, byte(len(label))), label...)
		}
		return append(append(b, 0, 0, 1, 0, 1), rest...)
	}
	yield(e.udp(client, message(1, 0)))
	answer := append([]byte{0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4}, g.bytes(4)...)
	yield(e.udp(server, message(0x81, 1, answer...)))
}

// audio makes packets of RTP, the first byte of which is like that of a long header.
func (g *generator) audio(yield func([]byte) bool) {
	e := g.between(20000 + uint16(g.random.IntN(10000))*2)
	source := g.bytes(4)
	for i := range 5 * g.bulk() {
		if g.closing {
			return
		}
		b := binary.BigEndian.AppendUint16([]byte{0x80, 0}, uint16(i))
		b = append(binary.BigEndian.AppendUint32(b, uint32(i)*160), source...)
		yield(e.udp(i%2, append(b, g.bytes(160)...)))
	}
}

// tunnel makes packets of WireGuard.
func (g *generator) tunnel(yield func([]byte) bool) {
	e := g.between(51820)
	ids := [2][]byte{g.bytes(4), g.bytes(4)}
	for i := range 5 * g.bulk() {
		if g.closing {
			return
		}
		b := append([]byte{4, 0, 0, 0}, ids[i%2]...)
		b = binary.LittleEndian.AppendUint64(b, uint64(i))
		yield(e.udp(i%2, append(b, g.bytes(96+16*g.random.IntN(70))...)))
	}
}
