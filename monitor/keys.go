package monitor

import (
	"bytes"
	"encoding/hex"

	"github.com/quicway/quicway/internal/decap"
	"github.com/quicway/quicway/internal/wire"
)

// ID is a connection ID, comparable. Those of more than 20 bytes, which no
// known version has, are not kept.
type ID struct {
	bytes [wire.MaxIDLen]byte
	len   uint8
}

func idOf(b []byte) (id ID) {
	id.len = uint8(copy(id.bytes[:], b))
	return id
}

// Bytes returns the ID's bytes.
func (id ID) Bytes() []byte { return bytes.Clone(id.bytes[:id.len]) }

// Len returns how many there are.
func (id ID) Len() int { return int(id.len) }

// String returns the ID in hex.
func (id ID) String() string { return hex.EncodeToString(id.bytes[:id.len]) }

// MarshalText gives the ID in hex.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// is says whether the ID is b.
func (id *ID) is(b []byte) bool {
	return int(id.len) == len(b) && string(id.bytes[:id.len]) == string(b)
}

// tuple is two endpoints, the lesser first, so that both directions have one.
type tuple struct{ a, b endpoint }

// tupleOf also says whether the packet goes from a to b.
func tupleOf(d *decap.Datagram) (key tuple, fromA bool) {
	c := bytes.Compare(d.Src.IP[:], d.Dst.IP[:])
	if c < 0 || c == 0 && d.Src.Port <= d.Dst.Port {
		return tuple{d.Src, d.Dst}, true
	}
	return tuple{d.Dst, d.Src}, false
}

// sourceKey is who talks to a server: an address, from any port, anybody, or an
// endpoint to any server.
type sourceKey struct {
	client endpoint // port 0, or zero: any
	server endpoint // zero: any
}

func anyPort(e endpoint) endpoint { return endpoint{IP: e.IP} }

// endpoint is an address and a port.
type endpoint = decap.Endpoint
