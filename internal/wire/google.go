package wire

import (
	"encoding/binary"
	"iter"
)

// Google QUIC, versions Q024 to Q050, has a handshake of its own ("QUIC Crypto"). Its first message, the
// CHLO, is not encrypted, or with keys that follow from a connection ID:
//
//	up to Q043    public header: flags, ID, version, packet number; then a hash
//	Q044 to Q048  long header: IDs with four bits for each length, packet number; then a hash
//	Q049          long header of the IETF, not protected; then a hash
//	Q050          Initial of the IETF
//
// The frames are Google's own. The message is in STREAM frames of stream 1, or from Q047 on in CRYPTO
// frames.

// googleNumber returns the number of a version of Google QUIC, as 46 of Q046. It is 0 for other versions.
func (v Version) googleNumber() int {
	if !v.Google() {
		return 0
	}
	return int(v>>16&15)*100 + int(v>>8&15)*10 + int(v&15)
}

// googleHash is the length of the hash before the frames of a packet that is not encrypted.
const googleHash = 12

// GoogleCrypto yields the parts of handshake messages in a packet of a client with a version of Google
// QUIC. Those of an encrypted packet are in buf, and those of others are parts of the packet. It yields
// nothing if the packet is of another kind, and stops at the first frame that it cannot read. The hash
// of the packet is not checked.
func GoogleCrypto(packet []byte, v Version, buf []byte) iter.Seq[CryptoFrame] {
	return func(yield func(CryptoFrame) bool) {
		r := googleReader{version: v.googleNumber()}
		if !r.open(packet, buf) {
			return
		}
		for len(r.b) > 0 {
			f, ok := r.frame()
			if !ok || len(f.Data) > 0 && !yield(f) {
				return
			}
		}
	}
}

// googleReader consumes the frames of a packet.
type googleReader struct {
	reader
	version   int
	numberLen int // length of the packet number
}

// open finds the frames of a packet.
func (r *googleReader) open(packet, buf []byte) bool {
	switch {
	case r.version >= 50:
		return r.openInitial(packet, buf)
	case r.version == 49:
		h, err := GoogleQ050.Parse(packet)
		if err != nil || h.Type != Initial {
			return false
		}
		r.b, r.numberLen = h.Packet[h.HeaderLen:], int(packet[0]&3)+1
	case r.version >= 44:
		if !r.longHeader(packet) {
			return false
		}
	case r.version > 0:
		if !r.publicHeader(packet) {
			return false
		}
	default:
		return false
	}
	skipped := r.numberLen + googleHash
	if r.version < 34 {
		skipped++ // private flags
	}
	return r.take(skipped) != nil
}

// openInitial removes the protection of an Initial.
func (r *googleReader) openInitial(packet, buf []byte) bool {
	h, err := GoogleQ050.Parse(packet)
	if err != nil || h.Type != Initial {
		return false
	}
	keys, err := GoogleQ050.InitialKeys(h.DstID, Client)
	if err != nil {
		return false
	}
	opened, err := keys.Open(buf, &h)
	r.b = opened.Payload
	return err == nil
}

// longHeader reads the header of versions 44 to 48 up to the packet number.
func (r *googleReader) longHeader(packet []byte) bool {
	const fixed = 6 // first byte, version, lengths of the IDs
	if len(packet) < fixed || !IsLong(packet[0]) {
		return false
	}
	initial := packet[0]&0x30 == 0
	r.numberLen = int(packet[0]&3) + 1
	if r.version < 46 {
		initial, r.numberLen = packet[0] == 0xff, 4
	}
	r.b = packet[fixed:]
	return initial && r.skipped(shortLength(packet[5]>>4)+shortLength(packet[5]&15))
}

// publicHeader reads the header of versions up to 43, up to the packet number.
func (r *googleReader) publicHeader(packet []byte) bool {
	if _, ok := GoogleVersion(packet); !ok {
		return false
	}
	r.b = packet[googleVersionEnd:]
	r.numberLen = [...]int{1, 2, 4, 6}[packet[0]>>4&3]
	return true
}

// Flags of the public header of Google's versions up to 43.
const (
	googleHasVersion = 0x01
	googleReset      = 0x02
	googleHasID      = 0x08 // an ID of eight bytes follows
	googleUnused     = 0xc0
	// googleVersionEnd is the length of flags, ID and version.
	googleVersionEnd = 1 + 8 + 4
)

// GoogleVersion returns the version in a public header of Google's versions up to 43. ok is false if b
// is none, or one without a version.
func GoogleVersion(b []byte) (v Version, ok bool) {
	if len(b) < googleVersionEnd || b[0]&(googleHasVersion|googleHasID|googleReset|googleUnused) != googleHasVersion|googleHasID {
		return 0, false
	}
	v = Version(binary.BigEndian.Uint32(b[9:]))
	return v, v.Google()
}

// take consumes n bytes. It returns nil if there are fewer.
func (r *googleReader) take(n int) []byte {
	if n < 0 || len(r.b) < n {
		return nil
	}
	field := r.b[:n:n]
	r.b = r.b[n:]
	return field
}

func (r *googleReader) skipped(n int) bool { return r.take(n) != nil }

// Types of Google's frames. Larger values have flags in them.
const (
	googlePadding      = 0x00
	googleWindowUpdate = 0x04
	googleBlocked      = 0x05
	googleStopWaiting  = 0x06
	googlePing         = 0x07
	googleAckFlag      = 0x40
	googleStreamFlag   = 0x80
)

// frame reads a frame. f has no data if the frame is not part of a handshake message.
func (r *googleReader) frame() (f CryptoFrame, ok bool) {
	kind := r.take(1)[0]
	switch {
	case kind&googleStreamFlag != 0:
		return r.stream(kind)
	case kind&googleAckFlag != 0:
		return f, r.version >= 34 && r.ack(kind)
	}
	switch kind {
	case googlePadding, googlePing:
		return f, true
	case googleWindowUpdate:
		return f, r.skipped(12)
	case googleBlocked:
		return f, r.skipped(4)
	case googleStopWaiting:
		return f, r.version >= 34 && r.skipped(r.numberLen)
	case googleCrypto:
		if r.version < 47 {
			return f, false
		}
		return r.crypto()
	}
	return f, false
}

// stream reads a STREAM frame. The handshake is on stream 1.
func (r *googleReader) stream(kind byte) (f CryptoFrame, ok bool) {
	id, ok := r.integer(int(kind&3) + 1)
	if !ok {
		return f, false
	}
	offsetLen := int(kind >> 2 & 7)
	if offsetLen > 0 {
		offsetLen++
	}
	if f.Offset, ok = r.integer(offsetLen); !ok {
		return f, false
	}
	length := uint64(len(r.b))
	if kind&0x20 != 0 {
		if length, ok = r.integer(2); !ok || length > uint64(len(r.b)) {
			return f, false
		}
	}
	if f.Data = r.take(int(length)); id != 1 {
		f.Data = nil
	}
	return f, true
}

// integer reads an integer of n bytes. Before Q039 integers begin with the least byte.
func (r *googleReader) integer(n int) (v uint64, ok bool) {
	field := r.take(n)
	if field == nil {
		return 0, false
	}
	for i := range field {
		if r.version >= 39 {
			v = v<<8 | uint64(field[i])
		} else {
			v |= uint64(field[i]) << (8 * i)
		}
	}
	return v, true
}

// ack skips an ACK frame.
func (r *googleReader) ack(kind byte) bool {
	sizes := [...]int{1, 2, 4, 6}
	largest, block := sizes[kind>>2&3], sizes[kind&3]
	blocks := 0
	if !r.skipped(largest + 2) { // and the delay
		return false
	}
	if kind&0x20 != 0 { // several blocks
		n, ok := r.integer(1)
		if !ok {
			return false
		}
		blocks = int(n)
	}
	if !r.skipped(block + blocks*(1+block)) {
		return false
	}
	timestamps, ok := r.integer(1)
	return ok && (timestamps == 0 || r.skipped(5+(int(timestamps)-1)*3))
}
