package wire

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// googlePacket returns a client's first packet of a version of Google QUIC, with frames.
func googlePacket(tb testing.TB, version string, frames []byte) []byte {
	tb.Helper()
	id, hash := []byte("clientid"), make([]byte, googleHash)
	v := Version(binary.BigEndian.Uint32([]byte(version)))
	switch n := v.googleNumber(); {
	case n >= 49:
		frames = append(bytes.Clone(frames), make([]byte, max(0, 1200-len(frames)))...)
		if n == 49 {
			frames = append(hash, frames...)
		}
		header := append(append([]byte{0xc0}, version...), 8)
		header = append(append(header, id...), 0, 0)
		if n == 49 {
			return append(append(binary.BigEndian.AppendUint16(header, 0x4000|uint16(1+len(frames))), 1), frames...)
		}
		keys, err := GoogleQ050.InitialKeys(id, Client)
		if err != nil {
			tb.Fatal(err)
		}
		header = append(binary.BigEndian.AppendUint16(header, 0x4000|uint16(1+len(frames)+Overhead)), 1)
		packet, err := keys.Seal(nil, header, frames)
		if err != nil {
			tb.Fatal(err)
		}
		return packet
	case n >= 44:
		first := byte(0xc3)
		if n < 46 {
			first = 0xff
		}
		header := append(append([]byte{first}, version...), 0x50)
		header = append(append(header, id...), 0, 0, 0, 1)
		return append(append(header, hash...), frames...)
	case n < 34:
		hash = append(hash, 0) // private flags
		fallthrough
	default:
		header := append(append(append([]byte{0x1d}, id...), version...), 0, 1)
		return append(append(header, hash...), frames...)
	}
}

// TestGoogleCrypto checks all headers and frames before a part of a message.
func TestGoogleCrypto(t *testing.T) {
	stream := []byte("\xa0\x01\x00\x04CHLO")
	crypto := []byte("\x08\x02\x04CHLO")
	join := func(parts ...string) []byte {
		var b []byte
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	for name, test := range map[string]struct {
		version string
		frames  []byte
		offset  uint64
		want    string
	}{
		"Q024":              {"Q024", []byte("\xa0\x01\x04\x00CHLO"), 0, "CHLO"},
		"Q035":              {"Q035", []byte("\xa4\x01\x05\x01\x04\x00CHLO"), 0x105, "CHLO"},
		"Q039":              {"Q039", stream, 0, "CHLO"},
		"Q043":              {"Q043", []byte("\xa4\x01\x01\x05\x00\x04CHLO\x00\x00"), 0x105, "CHLO"},
		"Q044":              {"Q044", stream, 0, "CHLO"},
		"Q046":              {"Q046", stream, 0, "CHLO"},
		"Q048":              {"Q048", crypto, 2, "CHLO"},
		"Q049":              {"Q049", crypto, 2, "CHLO"},
		"Q050":              {"Q050", crypto, 2, "CHLO"},
		"up to the end":     {"Q046", []byte("\x80\x01CHLO"), 0, "CHLO"},
		"long numbers":      {"Q046", []byte("\xbf\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x09\x00\x04CHLO"), 9, "CHLO"},
		"after an ACK":      {"Q046", join("\x40\x01\x00\x00\x01\x00", string(stream)), 0, "CHLO"},
		"after blocks":      {"Q046", join("\x65\x00\x01\x00\x00\x01\x00\x01\x00\x00\x01\x00", string(stream)), 0, "CHLO"},
		"after timestamps":  {"Q043", join("\x40\x01\x00\x00\x01\x02\x00\x00\x00\x00\x00\x00\x00\x00", string(stream)), 0, "CHLO"},
		"after others":      {"Q043", join("\x07\x05\x00\x00\x00\x01\x04", string(make([]byte, 12)), "\x06\x00\x01", string(stream)), 0, "CHLO"},
		"of another stream": {"Q046", []byte("\xa0\x03\x00\x04CHLO"), 0, ""},
		"CRYPTO too early":  {"Q046", crypto, 0, ""},
		"a length too long": {"Q046", []byte("\xa0\x01\x00\x05CHLO"), 0, ""},
		"unknown frame":     {"Q046", join("\x09", string(stream)), 0, ""},
		"an old ACK":        {"Q024", join("\x40\x01\x00\x00\x01\x00", string(stream)), 0, ""},
	} {
		packet := googlePacket(t, test.version, test.frames)
		v := Version(binary.BigEndian.Uint32([]byte(test.version)))
		var got []CryptoFrame
		for f := range GoogleCrypto(packet, v, nil) {
			got = append(got, f)
		}
		switch {
		case test.want == "" && len(got) != 0:
			t.Errorf("%s: got %v", name, got)
		case test.want != "" && (len(got) != 1 || string(got[0].Data) != test.want || got[0].Offset != test.offset):
			t.Errorf("%s: got %v, want %q at %d", name, got, test.want, test.offset)
		}
		for n := range packet {
			for f := range GoogleCrypto(packet[:n], v, nil) {
				if len(f.Data) > n {
					t.Fatalf("%s: %d bytes of %d", name, len(f.Data), n)
				}
			}
		}
	}
	// A packet that is not the client's first, or of another version.
	handshake := googlePacket(t, "Q046", stream)
	handshake[0] |= 0x10
	for f := range GoogleCrypto(handshake, 0x51303436, nil) {
		t.Errorf("got %q in a 0-RTT packet", f.Data)
	}
	for f := range GoogleCrypto(handshake, Version1, nil) {
		t.Errorf("got %q with version 1", f.Data)
	}
}

// TestGoogleAllocations checks that reading a packet that is not encrypted allocates nothing.
func TestGoogleAllocations(t *testing.T) {
	packet := googlePacket(t, "Q046", []byte("\xa0\x01\x00\x04CHLO"))
	if n := testing.AllocsPerRun(100, func() {
		for f := range GoogleCrypto(packet, 0x51303436, nil) {
			_ = f
		}
	}); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}
