package wire

import (
	"encoding/binary"
	"iter"
)

// Dialect is a format of long headers and a protection of Initials that several versions share.
// An endpoint only uses versions 1 and 2, and parses them with [Parse]. An observer also sees
// packets of other versions.
type Dialect uint8

// The dialects, named after their first version.
const (
	// NoDialect: only the version-independent fields are known (RFC 8999).
	NoDialect  Dialect = iota
	DialectV1          // version 1, and drafts 33 and 34
	DialectV2          // version 2
	Draft29            // drafts 29 to 32
	Draft25            // drafts 25 to 28: Retry has an integrity tag
	Draft23            // drafts 23 and 24
	Draft22            // draft 22: each connection ID has a length byte
	Draft21            // draft 21
	Draft18            // drafts 18 to 20
	DraftV2            // drafts of version 2
	GoogleT050         // Google's first version with TLS
	GoogleT051
	Picoquic   // picoquic's version for tests at the time of draft 22
	GoogleQ050 // Google's version without TLS whose Initials are encrypted

	numDialects
)

// Layouts are the dialects with known Initial keys and TLS, in the order in which an observer should
// try them on a packet of an unknown version. Those of a list parse Initials and 0-RTT packets alike.
// Draft23 is missing: its Initials have the keys of Draft25.
var Layouts = [...][]Dialect{
	{DialectV1, Draft29, Draft25, Draft22, GoogleT051, GoogleT050, Picoquic},
	{DialectV2, DraftV2},
	{Draft21, Draft18},
}

// derivation has the constants for the protection of Initials and Retries.
type derivation struct {
	salt       []byte
	label      string // prefix of "key", "iv" and "hp"
	retryKey   []byte // nil: a Retry has the original ID in place of an integrity tag
	retryNonce []byte
}

var (
	saltDraft18 = []byte{0xef, 0x4f, 0xb0, 0xab, 0xb4, 0x74, 0x70, 0xc4, 0x1b, 0xef, 0xcf, 0x80, 0x31, 0x33, 0x4f, 0xae, 0x48, 0x5e, 0x09, 0xa0}
	saltDraft21 = []byte{0x7f, 0xbc, 0xdb, 0x0e, 0x7c, 0x66, 0xbb, 0xe9, 0x19, 0x3a, 0x96, 0xcd, 0x21, 0x51, 0x9e, 0xbd, 0x7a, 0x02, 0x64, 0x4a}
	saltDraft23 = []byte{0xc3, 0xee, 0xf7, 0x12, 0xc7, 0x2e, 0xbb, 0x5a, 0x11, 0xa7, 0xd2, 0x43, 0x2b, 0xb4, 0x63, 0x65, 0xbe, 0xf9, 0xf5, 0x02}
)

// The retry key and nonce of drafts 25 to 28, which Google's versions also use.
var (
	retryKeyDraft25   = []byte{0x4d, 0x32, 0xec, 0xdb, 0x2a, 0x21, 0x33, 0xc8, 0x41, 0xe4, 0x04, 0x3d, 0xf2, 0x7d, 0x44, 0x30}
	retryNonceDraft25 = []byte{0x4d, 0x16, 0x11, 0xd0, 0x55, 0x13, 0xa5, 0x52, 0xc5, 0x87, 0xd5, 0x75}
)

var derivations = [numDialects]derivation{
	DialectV1: { // RFC 9001 §5.2, §5.8
		salt:       []byte{0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a},
		label:      "quic ",
		retryKey:   []byte{0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e},
		retryNonce: []byte{0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb},
	},
	DialectV2: { // RFC 9369 §3.3
		salt:       []byte{0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e, 0xd9},
		label:      "quicv2 ",
		retryKey:   []byte{0x8f, 0xb4, 0xb0, 0x1b, 0x56, 0xac, 0x48, 0xe2, 0x60, 0xfb, 0xcb, 0xce, 0xad, 0x7c, 0xcc, 0x92},
		retryNonce: []byte{0xd8, 0x69, 0x69, 0xbc, 0x2d, 0x7c, 0x6d, 0x99, 0x90, 0xef, 0xb0, 0x4a},
	},
	Draft29: {
		salt:       []byte{0xaf, 0xbf, 0xec, 0x28, 0x99, 0x93, 0xd2, 0x4c, 0x9e, 0x97, 0x86, 0xf1, 0x9c, 0x61, 0x11, 0xe0, 0x43, 0x90, 0xa8, 0x99},
		label:      "quic ",
		retryKey:   []byte{0xcc, 0xce, 0x18, 0x7e, 0xd0, 0x9a, 0x09, 0xd0, 0x57, 0x28, 0x15, 0x5a, 0x6c, 0xb9, 0x6b, 0xe1},
		retryNonce: []byte{0xe5, 0x49, 0x30, 0xf9, 0x7f, 0x21, 0x36, 0xf0, 0x53, 0x0a, 0x8c, 0x1c},
	},
	Draft25: {salt: saltDraft23, label: "quic ", retryKey: retryKeyDraft25, retryNonce: retryNonceDraft25},
	Draft23: {salt: saltDraft23, label: "quic "},
	Draft22: {salt: saltDraft21, label: "quic "},
	Draft21: {salt: saltDraft21, label: "quic "},
	Draft18: {salt: saltDraft18, label: "quic "},
	DraftV2: {
		salt:       []byte{0xa7, 0x07, 0xc2, 0x03, 0xa5, 0x9b, 0x47, 0x18, 0x4a, 0x1d, 0x62, 0xca, 0x57, 0x04, 0x06, 0xea, 0x7a, 0xe3, 0xe5, 0xd3},
		label:      "quicv2 ",
		retryKey:   []byte{0xba, 0x85, 0x8d, 0xc7, 0xb4, 0x3d, 0xe5, 0xdb, 0xf8, 0x76, 0x17, 0xff, 0x4a, 0xb2, 0x53, 0xdb},
		retryNonce: []byte{0x14, 0x1b, 0x99, 0xc2, 0x39, 0xb0, 0x3e, 0x78, 0x5d, 0x6a, 0x2e, 0x9f},
	},
	Picoquic: {
		salt:  []byte{0x30, 0x67, 0x16, 0xd7, 0x63, 0x75, 0xd5, 0x55, 0x4b, 0x2f, 0x60, 0x5e, 0xef, 0x78, 0xd8, 0x33, 0x3d, 0xc1, 0xca, 0x36},
		label: "quic ",
	},
	GoogleT050: {
		salt:     []byte{0x7f, 0xf5, 0x79, 0xe5, 0xac, 0xd0, 0x72, 0x91, 0x55, 0x80, 0x30, 0x4c, 0x43, 0xa2, 0x36, 0x7c, 0x60, 0x48, 0x83, 0x10},
		label:    "quic ",
		retryKey: retryKeyDraft25, retryNonce: retryNonceDraft25,
	},
	GoogleQ050: {
		salt:     []byte{0x50, 0x45, 0x74, 0xef, 0xd0, 0x66, 0xfe, 0x2f, 0x9d, 0x94, 0x5c, 0xfc, 0xdb, 0xd3, 0xa7, 0xf0, 0xd3, 0xb5, 0x6b, 0x45},
		label:    "quic ",
		retryKey: retryKeyDraft25, retryNonce: retryNonceDraft25,
	},
	GoogleT051: {
		salt:     []byte{0x7a, 0x4e, 0xde, 0xf4, 0xe7, 0xcc, 0xee, 0x5f, 0xa4, 0x50, 0x6c, 0x19, 0x12, 0x4f, 0xc8, 0xcc, 0xda, 0x6e, 0x03, 0x3d},
		label:    "quic ",
		retryKey: retryKeyDraft25, retryNonce: retryNonceDraft25,
	},
}

// googleCrypto is the type of CRYPTO frames in Google's versions with TLS.
const googleCrypto = 0x08

// CryptoFrames is like the function [CryptoFrames], for the payload of an Initial of d.
func (d Dialect) CryptoFrames(payload []byte) iter.Seq2[CryptoFrame, error] {
	return cryptoFrames(payload, d.cryptoFrame())
}

// cryptoFrame returns the type of CRYPTO frames.
func (d Dialect) cryptoFrame() uint64 {
	if d == GoogleT050 || d == GoogleT051 {
		return googleCrypto
	}
	return frameCrypto
}

// Dialect returns the dialect of a version, or NoDialect if it is not known.
func (v Version) Dialect() Dialect {
	switch v {
	case Version1:
		return DialectV1
	case Version2:
		return DialectV2
	case 0x709a50c4, 0xff020000:
		return DraftV2
	case 0xfaceb001: // mvfst
		return Draft22
	case 0xfaceb002, 0xfaceb00e:
		return Draft25
	case 0x50435131:
		return Picoquic
	case 0x51303530:
		return GoogleQ050
	case 0x54303530:
		return GoogleT050
	case 0x54303531:
		return GoogleT051
	}
	switch draft := v.Draft(); {
	case draft >= 33:
		return DialectV1
	case draft >= 29:
		return Draft29
	case draft >= 25:
		return Draft25
	case draft >= 23:
		return Draft23
	case draft == 22:
		return Draft22
	case draft == 21:
		return Draft21
	case draft >= 18:
		return Draft18
	}
	return NoDialect
}

// shortLengths says whether the lengths of both connection IDs are in one byte, as before
// draft 22. Each has four bits, with 0 or the length minus 3.
func (d Dialect) shortLengths() bool { return d == Draft21 || d == Draft18 }

// longType returns the type of a long header with this first byte.
func (d Dialect) longType(first byte) Type {
	switch d {
	case NoDialect:
		return Unknown
	case DialectV2, DraftV2:
		return Version2.longType(first)
	}
	return Version1.longType(first)
}

// Parse parses the long header of the first packet in b in the format of d, whatever its version
// field says. A Version Negotiation packet is parsed with the connection ID lengths of d. Parse
// returns ErrTruncated or ErrInvalid.
func (d Dialect) Parse(b []byte) (Header, error) {
	if len(b) < 6 || !IsLong(b[0]) {
		return Header{}, ErrTruncated
	}
	h := Header{First: b[0], Version: Version(binary.BigEndian.Uint32(b[1:])), Type: d.longType(b[0])}
	if h.Version == VersionNegotiation {
		h.Type = Negotiation
	}
	rest, ok := d.cutIDs(&h, b[5:])
	if !ok {
		return Header{}, ErrTruncated
	}
	if d != NoDialect && (len(h.DstID) > MaxIDLen || len(h.SrcID) > MaxIDLen) {
		return Header{}, ErrInvalid
	}
	h.HeaderLen = len(b) - len(rest)
	if h.Type == Retry && derivations[d].retryKey == nil {
		return h, d.parseOldRetry(&h, b, rest)
	}
	if err := h.parseBody(b, rest); err != nil {
		return Header{}, err
	}
	return h, nil
}

// cutIDs splits off both connection IDs and their lengths.
func (d Dialect) cutIDs(h *Header, b []byte) (rest []byte, ok bool) {
	if !d.shortLengths() {
		if h.DstID, rest, ok = cutID(b); !ok {
			return nil, false
		}
		h.SrcID, rest, ok = cutID(rest)
		return rest, ok
	}
	dst, src := shortLength(b[0]>>4), shortLength(b[0]&15)
	if b = b[1:]; len(b) < dst+src {
		return nil, false
	}
	h.DstID, h.SrcID = b[:dst], b[dst:dst+src]
	return b[dst+src:], true
}

func shortLength(bits byte) int {
	if bits == 0 {
		return 0
	}
	return int(bits) + 3
}

// parseOldRetry parses a Retry of a draft before 25: the Destination Connection ID of the Initial
// that it answers, and a token.
func (d Dialect) parseOldRetry(h *Header, b, rest []byte) error {
	h.Packet = b
	if d.shortLengths() {
		n := shortLength(b[0] & 15)
		if len(rest) < n {
			return ErrTruncated
		}
		h.OrigDstID, h.Token = rest[:n], rest[n:]
		return nil
	}
	var ok bool
	if h.OrigDstID, h.Token, ok = cutID(rest); !ok {
		return ErrTruncated
	}
	return nil
}
