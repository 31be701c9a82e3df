package wire

import (
	"encoding/binary"
	"fmt"
)

// AppendLong appends the packet that h describes to b, with the payload that
// follows its header: what comes after the length in an Initial, 0-RTT or
// Handshake packet, after the IDs in one of an unknown version. A Retry has
// its token and tag from h, a Version Negotiation its versions. [Parse] of the
// result gives h again, but for the views, if the lengths are encoded as
// shortly as they can be. It returns ErrInvalid for what no packet can be.
func AppendLong(b []byte, h *Header, payload []byte) ([]byte, error) {
	if len(h.DstID) > 255 || len(h.SrcID) > 255 {
		return nil, fmt.Errorf("%w: ID of more than 255 bytes", ErrInvalid)
	}
	if !IsLong(h.First) || h.Version.longType(h.First) != h.Type {
		return nil, fmt.Errorf("%w: first byte is not that of %v", ErrInvalid, h.Type)
	}
	b = append(b, h.First)
	b = binary.BigEndian.AppendUint32(b, uint32(h.Version))
	b = append(append(b, byte(len(h.DstID))), h.DstID...)
	b = append(append(b, byte(len(h.SrcID))), h.SrcID...)
	switch h.Type {
	case Negotiation:
		return append(b, h.Versions...), nil
	case Retry:
		return append(append(b, h.Token...), h.RetryTag...), nil
	case Initial:
		b = appendVarint(b, uint64(len(h.Token)))
		b = append(b, h.Token...)
		fallthrough
	case ZeroRTT, Handshake:
		b = appendVarint(b, uint64(len(payload)))
	}
	return append(b, payload...), nil
}

// FirstByte returns the first byte of a long header with the fixed bit set and
// the low bits given. It returns false if the version has no such type.
func FirstByte(v Version, t Type, low byte) (byte, bool) {
	if t == Unknown || t == Negotiation {
		return 0xc0 | low&0x3f, v.longType(0) == t
	}
	bits, ok := v.typeBits(t)
	return 0xc0 | bits | low&0x0f, ok
}

// appendVarint writes an integer below 2^30 in as few bytes as hold it
// (RFC 9000 §16).
func appendVarint(b []byte, v uint64) []byte {
	switch {
	case v < 1<<6:
		return append(b, byte(v))
	case v < 1<<14:
		return binary.BigEndian.AppendUint16(b, 0x4000|uint16(v))
	}
	return binary.BigEndian.AppendUint32(b, 0x80000000|uint32(v))
}
