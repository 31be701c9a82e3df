package traffic

import (
	"encoding/binary"

	"github.com/quicway/quicway/internal/test/wiretest"
	"github.com/quicway/quicway/internal/wire"
)

// Sizes of datagrams, and lengths of connection IDs, as quic-go has them.
const (
	handshakeSize = 1280
	dataSize      = 1252
	firstIDLen    = 12
	idLen         = 4
)

// connection is a connection of QUIC.
type connection struct {
	*generator
	ends
	keys [2]*wire.InitialKeys
	ids  [2][]byte // the source IDs of both sides
}

// quic makes the packets of a connection.
func (g *generator) quic(yield func([]byte) bool) {
	c := connection{generator: g, ends: g.between(443), ids: [2][]byte{g.bytes(idLen), g.bytes(idLen)}}
	first := g.bytes(firstIDLen)
	for side, of := range []wire.Side{wire.Client, wire.Server} {
		c.keys[side], _ = wire.NewInitialKeys(wire.Version1, first, of) // version and length are right
	}
	frames := g.helloFrames()
	g.content.Connections++
	send := func(from int, data []byte) {
		g.content.QUICPackets++
		yield(c.udp(from, data))
	}
	for number, f := range frames {
		send(client, c.initial(client, first, byte(number), f))
	}
	ack := []byte{2, 1, 0, 0, 1} // of packets 0 and 1
	send(server, c.initial(server, c.ids[client], 0, append(ack, cryptoFrame(0, g.serverHello())...)))
	send(server, c.handshake(server, 1000))
	send(client, append(c.initial(client, c.ids[server], 2, []byte{2, 0, 0, 0, 0}), c.handshake(client, 60)...))
	send(server, c.short(server, 180))
	send(client, c.short(client, 100+g.random.IntN(400)))
	for i := range g.bulk() {
		if g.closing {
			return
		}
		if send(server, c.short(server, dataSize)); i%2 == 1 {
			send(client, c.short(client, 35))
		}
	}
}

// helloFrames returns the frames of the packets with the ClientHello of a new connection.
func (g *generator) helloFrames() [][]byte {
	kind := g.random.IntN(tcpHello)
	message, name := g.hello(kind, g.quicName())
	if kind == shortHello {
		return [][]byte{cryptoFrame(0, message)}
	}
	return cut(message, name, len(placeholder))
}

// cut cuts a ClientHello for two packets as quic-go does: all but the second half of the name, as much as
// the first packet has room for, and then the rest.
func cut(message []byte, name, length int) [][]byte {
	const room = handshakeSize - 64 // for the headers of packet and frames, and the tag
	from, to := name+length/2, name+length
	first := cryptoFrame(0, message[:from])
	end := to
	if n := room - len(first); n > 0 {
		end = min(to+n, len(message))
		first = append(first, cryptoFrame(to, message[to:end])...)
	}
	second := cryptoFrame(from, message[from:to])
	if end < len(message) {
		second = append(cryptoFrame(end, message[end:]), second...)
	}
	return [][]byte{first, second}
}

// cryptoFrame returns a CRYPTO frame (RFC 9000 §19.6).
func cryptoFrame(offset int, data []byte) []byte {
	b := []byte{6}
	b = binary.BigEndian.AppendUint16(b, 0x4000|uint16(offset))
	b = binary.BigEndian.AppendUint16(b, 0x4000|uint16(len(data)))
	return append(b, data...)
}

// initial returns an Initial packet of a side, which fills a datagram, but for those of the client's that
// another packet follows.
func (c *connection) initial(from int, dst []byte, number byte, frames []byte) []byte {
	h := wire.Header{Type: wire.Initial, Version: wire.Version1, DstID: dst, SrcID: c.ids[from]}
	h.First, _ = wiretest.FirstByte(h.Version, h.Type, 0)
	size := handshakeSize
	if number == 2 {
		size -= 100
	}
	const fields = 11 // bytes of the other fields of the header
	payload := size - fields - len(dst) - len(h.SrcID) - wire.Overhead
	frames = append(frames, make([]byte, max(0, payload-len(frames)))...)
	header, _ := wiretest.AppendLong(nil, &h, make([]byte, 1+len(frames)+wire.Overhead))
	header = append(header[:len(header)-1-len(frames)-wire.Overhead], number)
	packet, _ := c.keys[from].Seal(nil, header, frames) // the header fits the frames
	return packet
}

// handshake returns a Handshake packet with a payload that nobody can read.
func (c *connection) handshake(from, size int) []byte {
	h := wire.Header{Type: wire.Handshake, Version: wire.Version1, DstID: c.ids[1-from], SrcID: c.ids[from]}
	h.First, _ = wiretest.FirstByte(h.Version, h.Type, byte(c.random.Uint32()))
	packet, _ := wiretest.AppendLong(nil, &h, c.bytes(size))
	return packet
}

// short returns a packet with a short header. Its spin bit is random.
func (c *connection) short(from, size int) []byte {
	packet := append([]byte{0x40 | byte(c.random.Uint32())&0x3f}, c.ids[1-from]...)
	return append(packet, c.bytes(size-len(packet))...)
}

// serverHello returns a ServerHello with a key for X25519MLKEM768 (RFC 8446 §4.1.3).
func (g *generator) serverHello() []byte {
	const keyLen = 1120
	extensions := []byte{0, 43, 0, 2, 3, 4, 0, 51}
	extensions = binary.BigEndian.AppendUint16(extensions, 4+keyLen)
	extensions = append(extensions, 0x11, 0xec, keyLen>>8, keyLen&0xff)
	extensions = append(extensions, g.bytes(keyLen)...)
	body := append([]byte{3, 3}, g.bytes(32)...)
	body = append(body, 0, 0x13, 1, 0) // no session, TLS_AES_128_GCM_SHA256, no compression
	body = binary.BigEndian.AppendUint16(body, uint16(len(extensions)))
	body = append(body, extensions...)
	return append([]byte{2, 0, byte(len(body) >> 8), byte(len(body))}, body...)
}
