package wire

import "fmt"

// Version is a version of QUIC, as in the IANA registry.
type Version uint32

// Versions that this package reads.
const (
	// VersionNegotiation marks a Version Negotiation packet (RFC 8999 §6).
	VersionNegotiation Version = 0
	Version1           Version = 0x00000001 // RFC 9000
	Version2           Version = 0x6b3343cf // RFC 9369
)

// Known says whether the package reads more of v than RFC 8999 says.
func (v Version) Known() bool { return v == Version1 || v == Version2 }

// String returns the usual name.
func (v Version) String() string {
	switch v {
	case VersionNegotiation:
		return "version negotiation"
	case Version1:
		return "v1"
	case Version2:
		return "v2"
	}
	return fmt.Sprintf("%#08x", uint32(v))
}

// Type is what a packet is for.
type Type uint8

// The types of packet.
const (
	OneRTT Type = iota // short header
	Initial
	ZeroRTT
	Handshake
	Retry
	Negotiation // Version Negotiation
	Unknown     // a long header of an unknown version
)

var typeNames = [...]string{"1-RTT", "Initial", "0-RTT", "Handshake", "Retry", "Version Negotiation", "unknown"}

// String returns the name that RFC 9000 uses.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// longType reads the two type bits of a long header.
func (v Version) longType(first byte) Type {
	bits := first >> 4 & 3
	switch v {
	case VersionNegotiation:
		return Negotiation
	case Version1: // RFC 9000 §17.2, table 5
		return [...]Type{Initial, ZeroRTT, Handshake, Retry}[bits]
	case Version2: // RFC 9369 §3.2
		return [...]Type{Retry, Initial, ZeroRTT, Handshake}[bits]
	}
	return Unknown
}

// typeBits is the inverse of longType.
func (v Version) typeBits(t Type) (byte, bool) {
	for bits := range byte(4) {
		if v.longType(bits<<4) == t {
			return bits << 4, t != Unknown && t != Negotiation
		}
	}
	return 0, false
}
