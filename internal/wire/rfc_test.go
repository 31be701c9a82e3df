package wire

import (
	"bytes"
	"testing"
)

// samples are the samples from Appendix A of RFC 9001 and RFC 9369.
var samples = []struct {
	prefix  string
	version Version
}{
	{"v1", Version1},
	{"v2", Version2},
}

func TestRFCInitials(t *testing.T) {
	origID := unhex(t, "8394c8f03e515708")
	for _, sample := range samples {
		for _, side := range []struct {
			name   string
			from   Side
			padded int // length of the payload
			number uint64
		}{{"client", Client, 1162, 2}, {"server", Server, 99, 1}} {
			t.Run(sample.prefix+"/"+side.name, func(t *testing.T) {
				name := sample.prefix + "/" + side.name
				packet := rfc(t, name+"/packet")
				h, err := Parse(packet, 0)
				if err != nil {
					t.Fatal(err)
				}
				if h.Type != Initial || h.Version != sample.version || len(h.Packet) != len(packet) {
					t.Fatalf("parsed %v of %v, %d bytes of %d", h.Type, h.Version, len(h.Packet), len(packet))
				}
				opened := reseal(t, &h, origID, side.from)
				if want := rfc(t, name+"/header"); !bytes.Equal(opened.Header, want) {
					t.Errorf("header %x, want %x", opened.Header, want)
				}
				if opened.PacketNumber != side.number {
					t.Errorf("packet number %d, want %d", opened.PacketNumber, side.number)
				}
				want := rfc(t, name+"/payload")
				want = append(want, make([]byte, side.padded-len(want))...)
				if !bytes.Equal(opened.Payload, want) {
					t.Errorf("payload\n%x, want\n%x", opened.Payload, want)
				}
			})
		}
	}
}

func TestRFCRetry(t *testing.T) {
	origID := unhex(t, "8394c8f03e515708")
	for _, sample := range samples {
		h, err := Parse(rfc(t, sample.prefix+"/retry/packet"), 0)
		if err != nil {
			t.Fatal(err)
		}
		if h.Type != Retry || string(h.Token) != "token" {
			t.Errorf("%v with token %q", h.Type, h.Token)
		}
		if !VerifyRetry(&h, origID) {
			t.Errorf("%s: does not verify", sample.prefix)
		}
		if VerifyRetry(&h, origID[1:]) {
			t.Errorf("%s: verifies for another ID", sample.prefix)
		}
	}
}

// TestOpenWithOtherKeys checks that a packet does not open with keys that have not
// protected it.
func TestOpenWithOtherKeys(t *testing.T) {
	packet := rfc(t, "v1/client/packet")
	h, err := Parse(packet, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, dstID := range map[string][]byte{"other ID": []byte("otherone"), "no ID": nil} {
		keys, err := NewInitialKeys(Version1, dstID, Client)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := keys.Open(nil, &h); err != ErrProtection {
			t.Errorf("%s: %v, want %v", name, err, ErrProtection)
		}
	}
	keys, err := NewInitialKeys(Version1, h.DstID, Server)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Open(nil, &h); err != ErrProtection {
		t.Errorf("server's keys: %v, want %v", err, ErrProtection)
	}
	if _, err := NewInitialKeys(0x1a2a3a4a, h.DstID, Client); err == nil {
		t.Error("made keys for a reserved version")
	}
}

func TestSealRefusesInvalidHeader(t *testing.T) {
	keys, err := NewInitialKeys(Version1, []byte("12345678"), Client)
	if err != nil {
		t.Fatal(err)
	}
	payload := make([]byte, 100)
	good := rfc(t, "v1/client/header")
	for name, header := range map[string][]byte{
		"nothing":      nil,
		"short header": {0x40, 1, 2, 3, 4},
		"handshake":    append([]byte{good[0] | 0x20}, good[1:]...),
		"other length": good,
		"cut":          good[:10],
	} {
		if packet, err := keys.Seal(nil, header, payload); err == nil {
			t.Errorf("%s: sealed %x", name, packet)
		}
	}
}
