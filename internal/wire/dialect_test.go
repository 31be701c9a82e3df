package wire

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"
)

// longOf makes a protected packet with a long header in the format of a dialect.
func longOf(tb testing.TB, d Dialect, v Version, dst, src, payload []byte) []byte {
	tb.Helper()
	first := byte(0xc0)
	if d == DialectV2 || d == DraftV2 {
		first = 0xd0
	}
	header := append([]byte{first}, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
	if d.shortLengths() {
		header = append(header, byte(len(dst)-3)<<4|byte(len(src)-3))
		header = append(append(header, dst...), src...)
	} else {
		header = append(append(header, byte(len(dst))), dst...)
		header = append(append(header, byte(len(src))), src...)
	}
	header = append(header, 0) // no token
	header = binary.BigEndian.AppendUint16(header, 0x4000|uint16(1+len(payload)+Overhead))
	keys, err := d.InitialKeys(dst, Client)
	if err != nil {
		tb.Fatal(err)
	}
	start := len(header)
	header = append(header, 7)
	nonce := keys.nonce(7)
	packet := keys.aead.Seal(bytes.Clone(header), nonce[:], payload, header)
	mask := keys.mask(packet[start+maxNumberLen:])
	packet[0] ^= mask[0] & 0x0f
	packet[start] ^= mask[1]
	return packet
}

// TestDialects checks that an Initial of each dialect opens in its own dialect, and in no
// other one with the same format.
func TestDialects(t *testing.T) {
	dst, src, payload := []byte("original"), []byte("scid"), bytes.Repeat([]byte("frames"), 30)
	for d := DialectV1; d < GoogleQ050; d++ {
		packet := longOf(t, d, 0x5a5a5a5a, dst, src, payload)
		for other := DialectV1; other < GoogleQ050; other++ {
			h, err := other.Parse(packet)
			opens := false
			if err == nil && h.Type == Initial {
				keys, err := other.InitialKeys(h.DstID, Client)
				if err != nil {
					t.Fatal(err)
				}
				opened, err := keys.Open(nil, &h)
				opens = err == nil
				if opens && (!bytes.Equal(opened.Payload, payload) || opened.PacketNumber != 7 || !bytes.Equal(h.SrcID, src)) {
					t.Errorf("dialect %d: opened to %x", d, opened.Payload)
				}
			}
			same := other == d || bytes.Equal(derivations[d].salt, derivations[other].salt) && d.shortLengths() == other.shortLengths()
			if opens != same {
				t.Errorf("Initial of dialect %d opens in %d: %v, want %v", d, other, opens, same)
			}
		}
	}
}

// TestLayouts checks that an observer reads an Initial of each dialect with TLS: it has the layout of one
// list only, and opens with the keys of one dialect in it.
func TestLayouts(t *testing.T) {
	for d := DialectV1; d < GoogleQ050; d++ {
		packet := longOf(t, d, 0x5a5a5a5a, []byte("original"), []byte("scid"), bytes.Repeat([]byte("frames"), 30))
		opened := 0
		for _, dialects := range Layouts {
			h, err := dialects[0].Parse(packet)
			if err != nil || h.Type != Initial {
				continue
			}
			for _, other := range dialects {
				if again, err := other.Parse(packet); err != nil || !reflect.DeepEqual(again, h) {
					t.Errorf("dialect %d: got %+v (%v), and in dialect %d %+v", dialects[0], h, err, other, again)
				}
				keys, err := other.InitialKeys(h.DstID, Client)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := keys.Open(nil, &h); err == nil {
					opened++
				}
			}
		}
		if opened != 1 {
			t.Errorf("Initial of dialect %d: %d dialects open it, want 1", d, opened)
		}
	}
}

func TestVersionDialects(t *testing.T) {
	for v, want := range map[Version]Dialect{
		0xff000011: NoDialect, 0xff000012: Draft18, 0xff000014: Draft18, 0xff000015: Draft21, 0xff000016: Draft22,
		0xff000017: Draft23, 0xff000018: Draft23, 0xff000019: Draft25, 0xff00001c: Draft25, 0xff00001d: Draft29,
		0xff000020: Draft29, 0xff000021: DialectV1, 0xff000022: DialectV1, 0xff000023: NoDialect,
		1: DialectV1, 0x6b3343cf: DialectV2, 0x709a50c4: DraftV2, 0xfaceb002: Draft25, 0x54303531: GoogleT051,
		0x51303436: NoDialect, 0x1a2a3a4a: NoDialect, 2: NoDialect,
	} {
		if got := v.Dialect(); got != want {
			t.Errorf("%v: got dialect %d, want %d", v, got, want)
		}
	}
	for v, want := range map[Version]string{
		1: "v1", 0xff00001d: "draft-29", 0x51303436: "Q046", 0x1a2a3a4a: "reserved 0x1a2a3a4a", 0xfaceb002: "mvfst 0xfaceb002", 2: "0x00000002",
	} {
		if got := v.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestOldRetry checks that a Retry of a draft before 25 is verified by its original
// connection ID.
func TestOldRetry(t *testing.T) {
	for d, packet := range map[Dialect][]byte{
		Draft22: []byte("\xf0\xff\x00\x00\x16\x04dest\x04srce\x08originaltoken"),
		Draft18: []byte("\xf5\xff\x00\x00\x12\x11destsrceoriginaltoken"),
	} {
		h, err := d.Parse(packet)
		if err != nil || string(h.OrigDstID) != "original" || string(h.Token) != "token" || string(h.DstID) != "dest" || string(h.SrcID) != "srce" {
			t.Errorf("dialect %d: got %+v, %v", d, h, err)
		}
		if !d.VerifyRetry(&h, []byte("original")) || d.VerifyRetry(&h, []byte("another")) {
			t.Errorf("dialect %d: a Retry verifies for the wrong ID", d)
		}
	}
}

// FuzzDialect checks in all dialects that a parsed header and packet are within the
// datagram.
func FuzzDialect(f *testing.F) {
	seeds(f, uint8(Draft29))
	f.Add([]byte("\xf5\xff\x00\x00\x12\x11destsrceoriginaltoken"), uint8(Draft18))
	f.Fuzz(func(t *testing.T, b []byte, dialect uint8) {
		d := Dialect(dialect % uint8(numDialects))
		h, err := d.Parse(b)
		if err != nil {
			return
		}
		if len(h.Packet) > len(b) || h.HeaderLen > len(h.Packet) || len(h.Packet) == 0 {
			t.Fatalf("header of %d, packet of %d, in %d bytes", h.HeaderLen, len(h.Packet), len(b))
		}
		d.VerifyRetry(&h, h.DstID)
		if h.Type == Initial && d != NoDialect {
			keys, err := d.InitialKeys(h.DstID, Server)
			if err != nil {
				t.Fatal(err)
			}
			keys.Open(nil, &h)
		}
	})
}
