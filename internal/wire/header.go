package wire

import (
	"encoding/binary"
	"errors"
)

// MaxIDLen is the longest connection ID of the known versions (RFC 9000
// §17.2). Others may have up to 255 bytes (RFC 8999 §5.1).
const MaxIDLen = 20

// MaxDatagram is the largest payload of a UDP datagram over IPv4.
const MaxDatagram = 65507

// retryTagLen is the length of a Retry Integrity Tag (RFC 9001 §5.8).
const retryTagLen = 16

var (
	// ErrTruncated: the packet ends before its header does, or before the
	// length that it states.
	ErrTruncated = errors.New("packet is cut short")
	// ErrInvalid: the packet has a field that its version does not allow.
	ErrInvalid = errors.New("packet has an invalid field")
)

// Header is a view of one packet. Its slices are parts of the datagram.
type Header struct {
	Type    Type
	First   byte    // the first byte, with its low bits still protected
	Version Version // of a long header
	DstID   []byte
	SrcID   []byte // of a long header
	// Token of an Initial or a Retry.
	Token []byte
	// RetryTag is the Retry Integrity Tag.
	RetryTag []byte
	// OrigDstID is the ID that a Retry answers, which it says in drafts
	// before 25.
	OrigDstID []byte
	// Versions is the list in a Version Negotiation packet, four bytes each.
	Versions []byte
	// HeaderLen is where the packet number begins, or, in packets that have
	// none or hide it, what follows the IDs.
	HeaderLen int
	// Packet is the packet itself: its part of the datagram.
	Packet []byte
}

// IsLong says whether a packet that begins with this byte has a long header
// (RFC 8999 §5).
func IsLong(first byte) bool { return first&0x80 != 0 }

// FixedBit returns the bit that RFC 9000 sets and RFC 9287 greases.
func (h *Header) FixedBit() bool { return h.First&0x40 != 0 }

// DstID returns the Destination Connection ID of the first packet in b, as
// far as RFC 8999 goes: whatever the version. A short header holds shortIDLen
// bytes of it.
func DstID(b []byte, shortIDLen int) ([]byte, error) {
	if len(b) == 0 {
		return nil, ErrTruncated
	}
	if !IsLong(b[0]) {
		if len(b) < 1+shortIDLen {
			return nil, ErrTruncated
		}
		return b[1 : 1+shortIDLen], nil
	}
	if len(b) < 6 || len(b) < 6+int(b[5]) {
		return nil, ErrTruncated
	}
	return b[6 : 6+int(b[5])], nil
}

// IDs returns the connection IDs of a long header, as far as RFC 8999 goes:
// whatever the version.
func IDs(b []byte) (dst, src []byte, err error) {
	if len(b) < 5 {
		return nil, nil, ErrTruncated
	}
	dst, rest, ok := cutID(b[5:])
	if !ok {
		return nil, nil, ErrTruncated
	}
	if src, _, ok = cutID(rest); !ok {
		return nil, nil, ErrTruncated
	}
	return dst, src, nil
}

// Parse reads the header of the first packet in b. A short header holds
// shortIDLen bytes of ID.
func Parse(b []byte, shortIDLen int) (Header, error) {
	if len(b) == 0 {
		return Header{}, ErrTruncated
	}
	if IsLong(b[0]) {
		return parseLong(b)
	}
	id, err := DstID(b, shortIDLen)
	if err != nil {
		return Header{}, err
	}
	return Header{Type: OneRTT, First: b[0], DstID: id, HeaderLen: 1 + shortIDLen, Packet: b}, nil
}

func parseLong(b []byte) (Header, error) {
	if len(b) < 5 {
		return Header{}, ErrTruncated
	}
	h := Header{First: b[0], Version: Version(binary.BigEndian.Uint32(b[1:]))}
	h.Type = h.Version.longType(h.First)
	rest, ok := b[5:], false
	if h.DstID, rest, ok = cutID(rest); !ok {
		return Header{}, ErrTruncated
	}
	if h.SrcID, rest, ok = cutID(rest); !ok {
		return Header{}, ErrTruncated
	}
	if h.Version.Known() && (len(h.DstID) > MaxIDLen || len(h.SrcID) > MaxIDLen) {
		return Header{}, ErrInvalid
	}
	h.HeaderLen = len(b) - len(rest)
	if err := h.parseBody(b, rest); err != nil {
		return Header{}, err
	}
	return h, nil
}

// parseBody reads what follows the IDs of a long header.
func (h *Header) parseBody(b, rest []byte) error {
	h.Packet = b
	switch h.Type {
	case Negotiation:
		if len(rest) == 0 || len(rest)%4 != 0 {
			return ErrInvalid
		}
		h.Versions = rest
	case Retry:
		if len(rest) < retryTagLen {
			return ErrTruncated
		}
		h.Token, h.RetryTag = rest[:len(rest)-retryTagLen], rest[len(rest)-retryTagLen:]
	case Initial, ZeroRTT, Handshake:
		return h.parseNumbered(b, rest)
	}
	return nil
}

// parseNumbered reads the token, of an Initial, and the length.
func (h *Header) parseNumbered(b, rest []byte) error {
	var ok bool
	if h.Type == Initial {
		if h.Token, rest, ok = cutBytes(rest); !ok {
			return ErrTruncated
		}
	}
	length, n := varint(rest)
	if n == 0 || length > uint64(len(rest)-n) {
		return ErrTruncated
	}
	h.HeaderLen = len(b) - len(rest) + n
	h.Packet = b[:h.HeaderLen+int(length)]
	return nil
}

// cutID takes an ID with its length in one byte before it.
func cutID(b []byte) (id, rest []byte, ok bool) {
	if len(b) < 1 || len(b) < 1+int(b[0]) {
		return nil, nil, false
	}
	return b[1 : 1+int(b[0])], b[1+int(b[0]):], true
}

// cutBytes takes bytes with their length in a varint before them.
func cutBytes(b []byte) (field, rest []byte, ok bool) {
	length, n := varint(b)
	if n == 0 || length > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n : n+int(length)], b[n+int(length):], true
}

// varint reads a variable-length integer (RFC 9000 §16) and says how many
// bytes it has: none if b is cut short.
func varint(b []byte) (value uint64, n int) {
	if len(b) == 0 {
		return 0, 0
	}
	n = 1 << (b[0] >> 6)
	if len(b) < n {
		return 0, 0
	}
	value = uint64(b[0] & 0x3f)
	for _, c := range b[1:n] {
		value = value<<8 | uint64(c)
	}
	return value, n
}
