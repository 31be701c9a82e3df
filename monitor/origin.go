package monitor

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math/big"

	"github.com/quicway/quicway/internal/wire"
)

// origin is what a connection began with.
type origin struct {
	uid   uid
	ids   [2]ID   // the first Source Connection ID of each side
	known [2]bool // whether ids has that of the side, which may be empty
	token uint32  // the length of the client's first token
}

// note takes a packet with a long header other than a Retry, whose ID the server uses for
// nothing else.
func (o *origin) note(from wire.Side, h *wire.Header) {
	if !o.known[from] {
		o.ids[from], o.known[from] = idOf(h.SrcID), true
	}
	if from == wire.Client && o.token == 0 {
		o.token = uint32(len(h.Token))
	}
}

// id returns the first ID of a side, or nil if it is not known.
func (o *origin) id(side wire.Side) *ID {
	if !o.known[side] {
		return nil
	}
	id := o.ids[side]
	return &id
}

// swapSides exchanges client and server.
func (o *origin) swapSides() {
	o.ids[0], o.ids[1] = o.ids[1], o.ids[0]
	o.known[0], o.known[1] = o.known[1], o.known[0]
}

// uid identifies a connection in every monitor that has seen its beginning.
type uid [12]byte

// uidOf returns the uid of a connection between two endpoints. IDs have their length before
// them, so that each list of IDs has a hash of its own.
func uidOf(key tuple, ids ...ID) (out uid) {
	in := make([]byte, 0, 80)
	for _, e := range [...]endpoint{key.a, key.b} {
		in = append(in, e.IP[:]...)
		in = binary.BigEndian.AppendUint16(in, e.Port)
	}
	for i := range ids {
		in = append(in, ids[i].len)
		in = append(in, ids[i].bytes[:ids[i].len]...)
	}
	sum := sha256.Sum256(in)
	copy(out[:], sum[:])
	return out
}

// firstUID returns the uid of a connection by its first packet, whose ID is that of the
// client's first Initial if the client has sent it.
func firstUID(key tuple, h *wire.Header, fromClient bool) uid {
	dst, src := idOf(h.DstID), idOf(h.SrcID)
	if !fromClient && bytes.Compare(h.DstID, h.SrcID) > 0 {
		dst, src = src, dst // in both directions the same
	}
	return uidOf(key, dst, src)
}

// uidDigits is the number of digits of a uid to the base 62.
const uidDigits = 17

// String returns the uid as Zeek writes its own: C, and digits to the base 62.
func (u uid) String() string {
	digits := new(big.Int).SetBytes(u[:]).Text(62)
	out := []byte("C00000000000000000")
	copy(out[1+uidDigits-len(digits):], digits)
	return string(out)
}
