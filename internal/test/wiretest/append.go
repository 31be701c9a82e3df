// Package wiretest builds QUIC packets with long headers for tests.
package wiretest

import (
	"encoding/binary"
	"fmt"

	"github.com/quicway/quicway/internal/wire"
)

// AppendLong appends to b the packet that h describes, with a payload. The payload
// follows the length field of an Initial, 0-RTT or Handshake packet, or the connection IDs
// of a packet of an unknown version. A Retry gets its token and integrity tag from h, a
// Version Negotiation packet its versions; both have no payload.
//
// [wire.Parse] of the result returns h again, except for HeaderLen and Packet: lengths
// are encoded in as few bytes as possible. AppendLong returns [wire.ErrInvalid] if no
// packet can have the header h.
func AppendLong(b []byte, h *wire.Header, payload []byte) ([]byte, error) {
	if len(h.DstID) > 255 || len(h.SrcID) > 255 {
		return nil, fmt.Errorf("%w: connection ID of more than 255 bytes", wire.ErrInvalid)
	}
	if !wire.IsLong(h.First) || longType(h.Version, h.First) != h.Type {
		return nil, fmt.Errorf("%w: first byte is not that of %v", wire.ErrInvalid, h.Type)
	}
	b = append(b, h.First)
	b = binary.BigEndian.AppendUint32(b, uint32(h.Version))
	b = append(append(b, byte(len(h.DstID))), h.DstID...)
	b = append(append(b, byte(len(h.SrcID))), h.SrcID...)
	switch h.Type {
	case wire.Negotiation:
		return append(b, h.Versions...), nil
	case wire.Retry:
		return append(append(b, h.Token...), h.RetryTag...), nil
	case wire.Initial:
		b = appendVarint(b, uint64(len(h.Token)))
		b = append(b, h.Token...)
		fallthrough
	case wire.ZeroRTT, wire.Handshake:
		b = appendVarint(b, uint64(len(payload)))
	}
	return append(b, payload...), nil
}

// FirstByte returns the first byte of a long header with the fixed bit set and the
// given low bits. It returns false if the version has no packets of the type.
func FirstByte(v wire.Version, t wire.Type, low byte) (byte, bool) {
	if t == wire.Unknown || t == wire.Negotiation {
		return 0xc0 | low&0x3f, longType(v, 0) == t
	}
	bits := (byte(t-wire.Initial) + initialBits(v)) & 3
	return 0xc0 | bits<<4 | low&0x0f, v.Known() && t >= wire.Initial && t <= wire.Retry
}

// longType returns the type of a packet with a long header.
func longType(v wire.Version, first byte) wire.Type {
	switch {
	case v == wire.VersionNegotiation:
		return wire.Negotiation
	case !v.Known():
		return wire.Unknown
	}
	return wire.Initial + wire.Type((first>>4-initialBits(v))&3)
}

// initialBits returns the two type bits of an Initial (RFC 9000 §17.2, RFC 9369 §3.2).
// The other types follow in the order of their constants in package wire.
func initialBits(v wire.Version) byte {
	if v == wire.Version2 {
		return 1
	}
	return 0
}

// appendVarint appends an integer below 2^30 in as few bytes as possible
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
