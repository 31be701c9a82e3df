package wire

import (
	"encoding/binary"
	"errors"
)

// MaxIDLen is the maximum length of a connection ID in the known versions (RFC 9000 §17.2), in
// bytes. In other versions it is 255 (RFC 8999 §5.1).
const MaxIDLen = 20

// MaxDatagram is the largest payload of a UDP datagram over IPv4.
const MaxDatagram = 65507

// retryTagLen is the length of a Retry Integrity Tag (RFC 9001 §5.8).
const retryTagLen = 16

var (
	// ErrTruncated is returned if a packet is shorter than its header, or than the
	// length in its header.
	ErrTruncated = errors.New("packet is cut short")
	// ErrInvalid is returned if a packet has a field that its version does not allow.
	ErrInvalid = errors.New("packet has an invalid field")
)

// Header is the header of one packet. Its slices are parts of the datagram.
type Header struct {
	Type    Type
	First   byte    // the first byte, whose low bits may be protected
	Version Version // only of a long header
	DstID   []byte  // Destination Connection ID
	SrcID   []byte  // Source Connection ID, only of a long header
	// Token is the token of an Initial or a Retry.
	Token []byte
	// RetryTag is the integrity tag of a Retry.
	RetryTag []byte
	// OrigDstID is the Destination Connection ID of the Initial that a Retry answers.
	// Only drafts before 25 have it.
	OrigDstID []byte
	// Versions is the list in a Version Negotiation packet, four bytes each.
	Versions []byte
	// HeaderLen is the length of the header before the packet number. In a packet
	// without a packet number, or of an unknown version, it is the length up to the
	// end of the connection IDs.
	HeaderLen int
	// Packet is the whole packet.
	Packet []byte
}

// IsLong says whether a packet with this first byte has a long header (RFC 8999 §5).
func IsLong(first byte) bool { return first&0x80 != 0 }

// FixedBit says whether the fixed bit is set (RFC 9000 §17). RFC 9287 allows to clear it.
func (h *Header) FixedBit() bool { return h.First&0x40 != 0 }

// DstID returns the Destination Connection ID of the first packet in b, of any version
// (RFC 8999 §5). shortIDLen is the length of the ID in a short header.
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

// IDs returns the connection IDs of a long header of any version (RFC 8999 §5.1).
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

// Parse parses the header of the first packet in b. shortIDLen is the length of the connection
// ID in a short header. Parse returns ErrTruncated or ErrInvalid.
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

// parseBody parses what follows the connection IDs of a long header.
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

// parseNumbered parses the token of an Initial, and the length of a packet with a packet number.
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

// cutID splits off a connection ID, which is preceded by its length in one byte.
func cutID(b []byte) (id, rest []byte, ok bool) {
	if len(b) < 1 || len(b) < 1+int(b[0]) {
		return nil, nil, false
	}
	return b[1 : 1+int(b[0])], b[1+int(b[0]):], true
}

// cutBytes splits off bytes that are preceded by their length in a varint.
func cutBytes(b []byte) (field, rest []byte, ok bool) {
	length, n := varint(b)
	if n == 0 || length > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n : n+int(length)], b[n+int(length):], true
}

// varint parses a variable-length integer (RFC 9000 §16). n is its length in bytes, or 0 if b is
// truncated.
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
