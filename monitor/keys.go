package monitor

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"

	"github.com/quicway/quicway/internal/decap"
	"github.com/quicway/quicway/internal/wire"
)

// ID is a connection ID. It can be compared with ==. IDs have at most 20 bytes,
// as in all known versions.
type ID struct {
	bytes [wire.MaxIDLen]byte
	len   uint8
}

func idOf(b []byte) (id ID) {
	id.len = uint8(copy(id.bytes[:], b))
	return id
}

// Bytes returns a copy of the ID's bytes.
func (id ID) Bytes() []byte { return bytes.Clone(id.bytes[:id.len]) }

// Len returns the number of bytes.
func (id ID) Len() int { return int(id.len) }

// String returns the ID in hex.
func (id ID) String() string { return hex.EncodeToString(id.bytes[:id.len]) }

// MarshalText returns the ID in hex.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// is reports whether the ID is b.
func (id *ID) is(b []byte) bool {
	return int(id.len) == len(b) && string(id.bytes[:id.len]) == string(b)
}

// sharesPrefix reports whether one of two IDs begins with all of the other.
func (id *ID) sharesPrefix(other ID) bool {
	n := min(id.len, other.len)
	return n > 0 && string(id.bytes[:n]) == string(other.bytes[:n])
}

// tuple is two endpoints, the lesser first, so that both directions have the same.
type tuple struct{ a, b endpoint }

// tupleOf returns the endpoints of a datagram, and whether it was sent from a.
func tupleOf(d *decap.Datagram) (key tuple, fromA bool) {
	if isLess(&d.Dst, &d.Src) {
		return tuple{d.Dst, d.Src}, false
	}
	return tuple{d.Src, d.Dst}, true
}

// isLess reports whether x is less than y, by address and then by port.
func isLess(x, y *endpoint) bool {
	for _, at := range [...]int{0, 8} { // in words, which is faster than bytes.Compare
		if p, q := binary.BigEndian.Uint64(x.IP[at:]), binary.BigEndian.Uint64(y.IP[at:]); p != q {
			return p < q
		}
	}
	return x.Port < y.Port
}

// endpoint is an address and a port.
type endpoint = decap.Endpoint
