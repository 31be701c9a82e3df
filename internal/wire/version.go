package wire

import "fmt"

// Version is a version number of QUIC.
type Version uint32

// Versions of QUIC.
const (
	// VersionNegotiation is the version field of a Version Negotiation packet
	// (RFC 8999 §6).
	VersionNegotiation Version = 0
	Version1           Version = 0x00000001 // RFC 9000
	Version2           Version = 0x6b3343cf // RFC 9369
)

// Known says whether [Parse] parses more than the version-independent fields: whether v is
// version 1 or 2.
func (v Version) Known() bool { return v == Version1 || v == Version2 }

// Draft returns the number of the IETF draft with version v, or 0 if there is none.
func (v Version) Draft() int {
	if v > 0xff000000 && v <= 0xff000022 {
		return int(v & 0xff)
	}
	return 0
}

// Reserved says whether v is reserved to exercise version negotiation (RFC 9000 §15).
func (v Version) Reserved() bool { return v&0x0f0f0f0f == 0x0a0a0a0a }

// Google says whether v is a version of Google QUIC, whose handshake is not TLS: the letter Q and
// three digits.
func (v Version) Google() bool {
	return v>>24 == 'Q' && isDigit(byte(v>>16)) && isDigit(byte(v>>8)) && isDigit(byte(v))
}

func isDigit(b byte) bool { return '0' <= b && b <= '9' }

// Registered says whether v is in the IANA registry of versions, or in the list of the working
// group that preceded it.
func (v Version) Registered() bool { return v.Dialect() != NoDialect || v.Google() || v.vendor() != "" }

// vendor returns the implementation that has reserved the range with v, or "".
func (v Version) vendor() string {
	switch v & 0xffffff00 {
	case 0xfaceb000:
		return "mvfst"
	case 0x50435100:
		return "picoquic"
	case 0x45474700:
		return "quant"
	case 0x91c17000:
		return "quicly"
	case 0x51474f00:
		return "quic-go"
	case 0xabcd0000:
		return "MsQuic"
	case 0xf123f000:
		return "mozquic"
	}
	return ""
}

// String returns the usual name of the version.
func (v Version) String() string {
	switch {
	case v == VersionNegotiation:
		return "version negotiation"
	case v == Version1:
		return "v1"
	case v == Version2:
		return "v2"
	case v == 0x709a50c4 || v == 0xff020000:
		return "v2 draft"
	case v.Draft() != 0:
		return fmt.Sprintf("draft-%02d", v.Draft())
	case v.Google() || v == 0x54303530 || v == 0x54303531:
		return string([]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
	case v.Reserved():
		return fmt.Sprintf("reserved %#08x", uint32(v))
	case v.vendor() != "":
		return fmt.Sprintf("%s %#08x", v.vendor(), uint32(v))
	}
	return fmt.Sprintf("%#08x", uint32(v))
}

// Type is the type of a packet.
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

// String returns the name of the type in RFC 9000.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// longType returns the type of a long header with this first byte.
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
