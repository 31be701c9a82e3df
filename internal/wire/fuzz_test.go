package wire

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// FuzzPackets checks that the packets of a datagram consist of its bytes, in order, and
// that they end.
func FuzzPackets(f *testing.F) {
	seeds(f, 12, 0)
	f.Fuzz(func(t *testing.T, b []byte, idLen, segment int) {
		idLen &= 31
		n := 0
		for h, err := range Packets(b, idLen) {
			if err != nil {
				break
			}
			if len(h.Packet) == 0 || !bytes.Equal(h.Packet, b[n:n+len(h.Packet)]) {
				t.Fatalf("packet of %d bytes at %d is not that of the datagram", len(h.Packet), n)
			}
			n += len(h.Packet)
		}
		if run := Run(b, segment, idLen); run > len(b) || run == 0 && len(b) > 0 {
			t.Fatalf("run of %d in %d bytes", run, len(b))
		}
	})
}

// FuzzCryptoFrames checks that frames are within the payload, and that a CryptoStream stays
// within its bounds.
func FuzzCryptoFrames(f *testing.F) {
	for _, sample := range samples {
		f.Add(rfc(f, sample.prefix+"/client/payload"))
		f.Add(rfc(f, sample.prefix+"/server/payload"))
	}
	f.Add([]byte{0, frameConnClose, 0x41, 0x28, 0, 1, 'x'})
	f.Fuzz(func(t *testing.T, payload []byte) {
		var s CryptoStream
		for frame, err := range CryptoFrames(payload) {
			if err != nil {
				break
			}
			if s.Add(frame.Offset, frame.Data) != nil {
				continue
			}
		}
		if len(s.buf) > MaxClientHello || len(s.ranges) > maxGaps {
			t.Fatalf("stream of %d bytes in %d ranges", len(s.buf), len(s.ranges))
		}
		if s.Complete() && len(s.ClientHello()) != s.ClientHelloLen() {
			t.Fatal("the ClientHello has another length")
		}
		for d := range numDialects {
			if c, ok := d.FindClose(payload); ok && (len(c.Reason) > len(payload) || len(c.Name()) > 100) {
				t.Fatalf("got %+v", c)
			}
		}
	})
}

// FuzzGoogleCrypto checks that the parts of a message are within the packet, or what was decrypted of
// it, and that reading ends.
func FuzzGoogleCrypto(f *testing.F) {
	for _, version := range []string{"Q024", "Q039", "Q043", "Q046", "Q048", "Q049", "Q050"} {
		f.Add(googlePacket(f, version, []byte("\x40\x01\x00\x00\x01\x00\xa0\x01\x00\x04CHLO\x00\x08\x01\x04more")), version)
	}
	f.Add([]byte("\xff"), "Q045")
	buf := make([]byte, 0, MaxDatagram)
	f.Fuzz(func(t *testing.T, packet []byte, version string) {
		if len(version) != 4 || len(packet) > MaxDatagram {
			return
		}
		n := 0
		for frame := range GoogleCrypto(packet, Version(binary.BigEndian.Uint32([]byte(version))), buf) {
			n += len(frame.Data)
		}
		if n > len(packet) {
			t.Fatalf("%d bytes in a packet of %d", n, len(packet))
		}
	})
}

// FuzzOpenInitial checks that sealing an opened Initial gives the same packet.
func FuzzOpenInitial(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := Parse(b, 12)
		if err != nil || h.Type != Initial {
			return
		}
		keys, err := NewInitialKeys(h.Version, h.DstID, Client)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := keys.Open(nil, &h)
		if err != nil {
			return
		}
		sealed, err := keys.Seal(nil, opened.Header, opened.Payload)
		if err != nil || !bytes.Equal(sealed, h.Packet) {
			t.Fatalf("sealed %x, %v, want %x", sealed, err, h.Packet)
		}
	})
}
