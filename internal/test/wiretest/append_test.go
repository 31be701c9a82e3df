package wiretest

import (
	"errors"
	"testing"

	"github.com/quicway/quicway/internal/wire"
)

// TestAppendLongRefuses checks that no packet is made from a header that no packet can
// have. That the other packets are right is checked in package wire, with recorded ones.
func TestAppendLongRefuses(t *testing.T) {
	for name, h := range map[string]*wire.Header{
		"short header":             {Type: wire.OneRTT, First: 0x40},
		"first byte of other type": {Type: wire.Handshake, First: 0xc0, Version: wire.Version1},
		"ID of 256 bytes":          {Type: wire.Unknown, First: 0xc0, Version: 5, DstID: make([]byte, 256)},
		"unknown type of v1":       {Type: wire.Unknown, First: 0xc0, Version: wire.Version1},
	} {
		if b, err := AppendLong(nil, h, nil); !errors.Is(err, wire.ErrInvalid) {
			t.Errorf("%s: made %x, %v", name, b, err)
		}
	}
}

// TestFirstByte checks that package wire reads the type back from the first byte.
func TestFirstByte(t *testing.T) {
	for _, v := range []wire.Version{wire.VersionNegotiation, wire.Version1, wire.Version2, 0xabadcafe} {
		for typ := wire.OneRTT; typ <= wire.Unknown; typ++ {
			first, ok := FirstByte(v, typ, 3)
			if want := typ == wire.Negotiation && v == wire.VersionNegotiation ||
				typ == wire.Unknown && v == 0xabadcafe ||
				typ >= wire.Initial && typ <= wire.Retry && v.Known(); ok != want {
				t.Errorf("%v of %v: %v, want %v", typ, v, ok, want)
			}
			if !ok {
				continue
			}
			packet := []byte{first, byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v), 0, 0}
			packet = append(packet, make([]byte, 16)...) // a Retry tag, versions, or empty fields
			h, err := wire.Parse(packet, 0)
			if err != nil || h.Type != typ || !wire.IsLong(first) || first&0x43 != 0x43 {
				t.Errorf("%v of %v: first byte %#x reads as %v, %v", typ, v, first, h.Type, err)
			}
		}
	}
}
