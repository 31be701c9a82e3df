package monitor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/quicway/quicway/internal/decap"
)

// rewritten returns a pcap file of version 2.4, little-endian and with nanoseconds, in another
// version, byte order and unit. lengths returns the lengths of a record in the order in which
// they are written.
func rewritten(file []byte, order binary.ByteOrder, minor uint16, nanoseconds bool, lengths func(captured, length uint32) (uint32, uint32)) []byte {
	le := binary.LittleEndian
	magic, unit := uint32(0xa1b2c3d4), uint32(1000)
	if nanoseconds {
		magic, unit = 0xa1b23c4d, 1
	}
	out := make([]byte, pcapHeader)
	order.PutUint32(out, magic)
	order.PutUint16(out[4:], 2)
	order.PutUint16(out[6:], minor)
	order.PutUint32(out[16:], le.Uint32(file[16:]))
	order.PutUint32(out[20:], le.Uint32(file[20:]))
	for rest := file[pcapHeader:]; len(rest) > 0; {
		captured := le.Uint32(rest[8:])
		first, second := lengths(captured, le.Uint32(rest[12:]))
		var head [recordHeader]byte
		order.PutUint32(head[:], le.Uint32(rest))
		order.PutUint32(head[4:], le.Uint32(rest[4:])/unit)
		order.PutUint32(head[8:], first)
		order.PutUint32(head[12:], second)
		out = append(append(out, head[:]...), rest[recordHeader:recordHeader+captured]...)
		rest = rest[recordHeader+captured:]
	}
	return out
}

// TestPcapVersions checks that all versions, byte orders and units of pcap give the same packets,
// also if a record says that the packet was shorter than what was captured.
func TestPcapVersions(t *testing.T) {
	file := pcapOf(t, decap.LinkRaw, play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 1000) })...)
	asTheyAre := func(captured, length uint32) (uint32, uint32) { return captured, length }
	swapped := func(captured, length uint32) (uint32, uint32) { return length, captured }
	tooShort := func(captured, _ uint32) (uint32, uint32) { return captured, captured / 2 }
	want := packetsOf(t, file)
	for name, other := range map[string][]byte{
		"2.4, big-endian":   rewritten(file, binary.BigEndian, 4, false, asTheyAre),
		"2.4, nanoseconds":  rewritten(file, binary.LittleEndian, 4, true, asTheyAre),
		"2.4, contradicted": rewritten(file, binary.LittleEndian, 4, false, tooShort),
		"2.3":               rewritten(file, binary.LittleEndian, 3, false, asTheyAre),
		"2.3, swapped":      rewritten(file, binary.BigEndian, 3, false, swapped),
		"2.2":               rewritten(file, binary.LittleEndian, 2, false, swapped),
		"2.1":               rewritten(file, binary.BigEndian, 1, true, swapped),
		"2.0":               rewritten(file, binary.LittleEndian, 0, false, swapped),
	} {
		got := packetsOf(t, other)
		if len(got) != len(want) || len(got) == 0 {
			t.Errorf("%s: %d packets, want %d", name, len(got), len(want))
			continue
		}
		for i := range got {
			if !got[i].Time.Equal(want[i].Time) || !bytes.Equal(got[i].Data, want[i].Data) || got[i].Length != want[i].Length || got[i].Link != want[i].Link {
				t.Errorf("%s: packet %d of %d bytes at %v differs, want %d bytes at %v", name, i, got[i].Length, got[i].Time, want[i].Length, want[i].Time)
			}
		}
	}
	for name, bad := range map[string][]byte{
		"2.5": rewritten(file, binary.LittleEndian, 5, false, asTheyAre),
		"cut": file[:pcapHeader-1],
	} {
		if _, err := NewReader(bytes.NewReader(bad)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, want %v", name, err, ErrFormat)
		}
	}
	long := rewritten(file, binary.LittleEndian, 4, false, func(uint32, uint32) (uint32, uint32) { return maxPcapData + 1, 1 })
	source, err := NewReader(bytes.NewReader(long))
	if err != nil {
		t.Fatal(err)
	}
	if err := source.Read(new(Packet)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a record of %d bytes: %v, want an error", maxPcapData+1, err)
	}
}

// packetsOf returns the packets of a file.
func packetsOf(t *testing.T, file []byte) (out []Packet) {
	t.Helper()
	source, err := NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	for {
		var p Packet
		if err := source.Read(&p); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		p.Data = bytes.Clone(p.Data)
		out = append(out, p)
	}
}

// TestPcapInPieces checks that a stream gives the same packets however many bytes a read returns.
func TestPcapInPieces(t *testing.T) {
	all := play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 10000) })
	capture := pcapOf(t, decap.LinkRaw, all...)
	want := newTracker(t, nil)
	track(want, all)
	for name, r := range map[string]io.Reader{
		"bytes": iotest.OneByteReader(bytes.NewReader(capture)),
		"halfs": iotest.HalfReader(bytes.NewReader(capture)),
		"whole": bytes.NewReader(capture),
	} {
		source, err := NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		m, err := New(source, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Run(t.Context()); err != nil {
			t.Error(err)
		}
		if got, want := only(t, m.Tracker()), only(t, want); got.FromServer != want.FromServer || got.ServerName != want.ServerName {
			t.Errorf("%s: got %v of %q, want %v of %q", name, got.FromServer, got.ServerName, want.FromServer, want.ServerName)
		}
	}
}

// TestPcapReady checks that readReady does not wait for the rest of a packet.
func TestPcapReady(t *testing.T) {
	capture := pcapOf(t, decap.LinkRaw, at(0, clientAddr, serverAddr, make([]byte, 100)), at(1, clientAddr, serverAddr, make([]byte, 200)))
	second := pcapHeader + recordHeader + int(binary.LittleEndian.Uint32(capture[pcapHeader+8:]))
	for _, begun := range []int{0, 8, recordHeader, recordHeader + 100} { // of the second record
		r, w := io.Pipe()
		go func() {
			_, _ = w.Write(capture[:second+begun])
			_, _ = w.Write(capture[second+begun:])
		}()
		source, err := NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		var p Packet
		if err := source.Read(&p); err != nil || p.Length != 128 {
			t.Errorf("got %d bytes, %v, want the first packet", p.Length, err)
		}
		if source.(*file).readReady(&p) {
			t.Errorf("with %d bytes of a packet it was ready", begun)
		}
		if err := source.Read(&p); err != nil || p.Length != 228 {
			t.Errorf("got %d bytes, %v, want the second packet", p.Length, err)
		}
		r.Close()
	}
}
