package wire

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

func long(version Version, first byte, dst, src int, rest ...byte) []byte {
	b := []byte{first, byte(version >> 24), byte(version >> 16), byte(version >> 8), byte(version)}
	b = append(b, byte(dst))
	b = append(b, bytes.Repeat([]byte{0xdd}, dst)...)
	b = append(b, byte(src))
	b = append(b, bytes.Repeat([]byte{0x55}, src)...)
	return append(b, rest...)
}

func TestParse(t *testing.T) {
	tag := bytes.Repeat([]byte{7}, 16)
	tests := []struct {
		name    string
		packet  []byte
		typ     Type
		dst     int
		src     int
		header  int // its length
		length  int // of the packet, 0 for all
		token   []byte
		wantErr error
	}{
		{name: "nothing", wantErr: ErrTruncated},
		{name: "short", packet: append([]byte{0x40}, bytes.Repeat([]byte{0xdd}, 30)...), typ: OneRTT, dst: 12, header: 13},
		{name: "short, no fixed bit", packet: append([]byte{0}, bytes.Repeat([]byte{0xdd}, 12)...), typ: OneRTT, dst: 12, header: 13},
		{name: "short, cut", packet: append([]byte{0x40}, bytes.Repeat([]byte{0xdd}, 11)...), wantErr: ErrTruncated},
		{name: "initial", packet: long(Version1, 0xc0, 8, 4, 2, 9, 9, 3, 1, 2, 3, 0xee), typ: Initial, dst: 8, src: 4, header: 23, length: 26, token: []byte{9, 9}},
		{name: "initial, no IDs", packet: long(Version1, 0xc0, 0, 0, 0, 1, 1), typ: Initial, header: 9, token: []byte{}},
		{name: "initial, IDs of 20", packet: long(Version1, 0xc0, 20, 20, 0, 1, 1), typ: Initial, dst: 20, src: 20, header: 49, token: []byte{}},
		{name: "initial, no fixed bit", packet: long(Version1, 0x80, 8, 4, 0, 1, 1), typ: Initial, dst: 8, src: 4, header: 21, token: []byte{}},
		{name: "initial, ID of 21", packet: long(Version1, 0xc0, 21, 0, 0, 1, 1), wantErr: ErrInvalid},
		{name: "initial, source ID of 21", packet: long(Version2, 0xd0, 0, 21, 0, 1, 1), wantErr: ErrInvalid},
		{name: "initial, long token", packet: long(Version1, 0xc0, 8, 4, 5, 1, 1), wantErr: ErrTruncated},
		{name: "initial, endless token", packet: long(Version1, 0xc0, 8, 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0), wantErr: ErrTruncated},
		{name: "initial, endless length", packet: long(Version1, 0xc0, 8, 4, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0), wantErr: ErrTruncated},
		{name: "initial, length past the end", packet: long(Version1, 0xc0, 8, 4, 0, 3, 1, 2), wantErr: ErrTruncated},
		{name: "initial of v2", packet: long(Version2, 0xd0, 8, 4, 0, 1, 1), typ: Initial, dst: 8, src: 4, header: 21, token: []byte{}},
		{name: "0-RTT", packet: long(Version1, 0xd0, 8, 4, 1, 1), typ: ZeroRTT, dst: 8, src: 4, header: 20},
		{name: "0-RTT of v2", packet: long(Version2, 0xe0, 8, 4, 1, 1), typ: ZeroRTT, dst: 8, src: 4, header: 20},
		{name: "handshake", packet: long(Version1, 0xe0, 8, 4, 1, 1), typ: Handshake, dst: 8, src: 4, header: 20},
		{name: "handshake of v2", packet: long(Version2, 0xf0, 8, 4, 1, 1), typ: Handshake, dst: 8, src: 4, header: 20},
		{name: "handshake, length in 8 bytes", packet: long(Version1, 0xe0, 8, 4, 0xc0, 0, 0, 0, 0, 0, 0, 2, 1, 1, 0xee), typ: Handshake, dst: 8, src: 4, header: 27, length: 29},
		{name: "retry", packet: long(Version1, 0xf0, 4, 8, append([]byte{1, 2, 3}, tag...)...), typ: Retry, dst: 4, src: 8, header: 19, token: []byte{1, 2, 3}},
		{name: "retry of v2", packet: long(Version2, 0xc0, 4, 8, tag...), typ: Retry, dst: 4, src: 8, header: 19, token: []byte{}},
		{name: "retry, no tag", packet: long(Version1, 0xf0, 4, 8, tag[1:]...), wantErr: ErrTruncated},
		{name: "negotiation", packet: long(VersionNegotiation, 0x80, 4, 8, 0, 0, 0, 1), typ: Negotiation, dst: 4, src: 8, header: 19},
		{name: "negotiation, long IDs", packet: long(VersionNegotiation, 0x80, 255, 255, 0, 0, 0, 1), typ: Negotiation, dst: 255, src: 255, header: 517},
		{name: "negotiation, no versions", packet: long(VersionNegotiation, 0x80, 4, 8), wantErr: ErrInvalid},
		{name: "negotiation, half a version", packet: long(VersionNegotiation, 0x80, 4, 8, 0, 0), wantErr: ErrInvalid},
		{name: "unknown version", packet: long(0xabadcafe, 0xc0, 255, 30, 1, 2), typ: Unknown, dst: 255, src: 30, header: 292},
		{name: "unknown version, nothing more", packet: long(0xabadcafe, 0x80, 0, 0), typ: Unknown, header: 7},
		{name: "unknown version, cut", packet: long(0xabadcafe, 0xc0, 255, 30)[:100], wantErr: ErrTruncated},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h, err := Parse(test.packet, 12)
			if !errors.Is(err, test.wantErr) {
				t.Fatalf("error %v, want %v", err, test.wantErr)
			}
			if err != nil {
				return
			}
			if test.length == 0 {
				test.length = len(test.packet)
			}
			if h.Type != test.typ || len(h.DstID) != test.dst || len(h.SrcID) != test.src ||
				h.HeaderLen != test.header || len(h.Packet) != test.length || !bytes.Equal(h.Token, test.token) {
				t.Errorf("got %+v", h)
			}
			if bytes.Count(h.DstID, []byte{0xdd}) != test.dst || bytes.Count(h.SrcID, []byte{0x55}) != test.src {
				t.Errorf("IDs %x and %x", h.DstID, h.SrcID)
			}
		})
	}
}

// TestParseCut checks that truncated packets cause an error, and that nothing beyond their
// end is read.
func TestParseCut(t *testing.T) {
	for _, d := range flights(t) {
		for h, err := range Packets(d.data, d.idLen) {
			if err != nil {
				t.Fatal(err)
			}
			for n := range h.Packet {
				cut := slices.Clip(bytes.Clone(h.Packet[:n]))
				got, err := Parse(cut, d.idLen)
				switch whole := h.Type == OneRTT || h.Type == Negotiation || h.Type == Retry; {
				case err == nil && !whole:
					t.Fatalf("%v of %d bytes, cut after %d: parsed as %+v", h.Type, len(h.Packet), n, got)
				case err == nil && n < h.HeaderLen:
					t.Fatalf("%v, cut after %d of the header's %d: parsed", h.Type, n, h.HeaderLen)
				case err != nil && !errors.Is(err, ErrTruncated) && !errors.Is(err, ErrInvalid):
					t.Fatal(err)
				}
			}
		}
	}
}
