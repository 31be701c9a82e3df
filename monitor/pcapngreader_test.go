package monitor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
	"time"
)

// ng writes pcapng files.
type ng struct{ binary.ByteOrder }

// block returns a block.
func (o ng) block(kind uint32, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	return slices.Concat(o.u32(kind, uint32(12+len(body))), body, o.u32(uint32(12+len(body))))
}

func (o ng) u32(values ...uint32) (b []byte) {
	for _, v := range values {
		b = append(b, make([]byte, 4)...)
		o.PutUint32(b[len(b)-4:], v)
	}
	return b
}

func (o ng) u16(values ...uint16) (b []byte) {
	for _, v := range values {
		b = append(b, make([]byte, 2)...)
		o.PutUint16(b[len(b)-2:], v)
	}
	return b
}

// section returns the header of a section of version 1.minor, with a comment.
func (o ng) section(minor uint16) []byte {
	return o.block(blockSection, o.u32(byteOrderMagic), o.u16(1, minor), o.u32(0xffffffff, 0xffffffff), o.option(1, []byte("a comment")))
}

// option returns an option.
func (o ng) option(code uint16, value []byte) []byte {
	padded := append(bytes.Clone(value), make([]byte, (4-len(value)%4)%4)...)
	return append(o.u16(code, uint16(len(value))), padded...)
}

// iface returns the description of an interface.
func (o ng) iface(link uint16, snap uint32, options ...[]byte) []byte {
	return o.block(blockInterface, o.u16(link, 0), o.u32(snap), slices.Concat(options...))
}

// packet returns an enhanced packet block.
func (o ng) packet(number uint32, units uint64, captured, length uint32, data string) []byte {
	return o.block(blockEnhanced, o.u32(number, uint32(units>>32), uint32(units), captured, length), []byte(data))
}

// TestPcapng checks what programs write in pcapng files: whatever is around a packet, it is read.
func TestPcapng(t *testing.T) {
	le, be := ng{binary.LittleEndian}, ng{binary.BigEndian}
	const micros, data = 1_700_000_000_250_000, "packet"
	at := time.UnixMicro(micros).UTC()
	want := Packet{Time: at, Link: 1, Data: []byte(data), Length: 6}
	one := le.packet(0, micros, 6, 6, data)
	begin := slices.Concat(le.section(0), le.iface(1, 0))
	offset := func(o ng, seconds int64) []byte {
		b := make([]byte, 8)
		o.PutUint64(b, uint64(seconds))
		return o.option(14, b)
	}
	resolution := func(o ng, v byte) []byte { return o.option(9, []byte{v}) }
	long, other, none, untimed := want, want, want, want
	long.Length, other.Link, none.Data, none.Length = 99, 101, []byte{}, 6
	untimed.Time = time.Time{}
	coarse := want
	coarse.Time = time.Unix(1_700_000_000, 0).UTC()
	for name, test := range map[string]struct {
		file []byte
		want []Packet
	}{
		"little-endian":           {slices.Concat(begin, one, one), []Packet{want, want}},
		"big-endian":              {slices.Concat(be.section(0), be.iface(1, 96), be.packet(0, micros, 6, 99, data)), []Packet{long}},
		"version 1.2":             {slices.Concat(le.section(2), le.iface(1, 0), one), []Packet{want}},
		"nanoseconds":             {slices.Concat(le.section(0), le.iface(1, 0, resolution(le, 9)), le.packet(0, micros*1000, 6, 6, data)), []Packet{want}},
		"picoseconds, offset":     {slices.Concat(le.section(0), le.iface(1, 0, resolution(le, 12), offset(le, 1_700_000_000)), le.packet(0, 250_000_000_000, 6, 6, data)), []Packet{want}},
		"seconds":                 {slices.Concat(le.section(0), le.iface(1, 0, resolution(le, 0)), le.packet(0, 1_700_000_000, 6, 6, data)), []Packet{coarse}},
		"2^-2 seconds":            {slices.Concat(le.section(0), le.iface(1, 0, resolution(le, 0x82)), le.packet(0, 1_700_000_000<<2|1, 6, 6, data)), []Packet{want}},
		"2^-32 seconds":           {slices.Concat(be.section(0), be.iface(1, 0, resolution(be, 0xa0)), be.packet(0, 1_700_000_000<<32|1<<30, 6, 6, data)), []Packet{want}},
		"2^-63 seconds, offset":   {slices.Concat(be.section(0), be.iface(1, 0, resolution(be, 0xbf), offset(be, 1_700_000_000)), be.packet(0, 1<<61, 6, 6, data)), []Packet{want}},
		"an offset before 1970":   {slices.Concat(le.section(0), le.iface(1, 0, offset(le, -5)), le.packet(0, micros+5_000_000, 6, 6, data)), []Packet{want}},
		"two interfaces":          {slices.Concat(begin, le.iface(101, 0), one, le.packet(1, micros, 6, 6, data)), []Packet{want, other}},
		"two sections":            {slices.Concat(begin, one, be.section(0), be.iface(101, 0), be.packet(0, micros, 6, 6, data)), []Packet{want, other}},
		"an obsolete block":       {slices.Concat(begin, le.block(blockPacket, le.u16(0, 7), le.u32(micros>>32, micros&0xffffffff, 6, 99), []byte(data), le.option(2, make([]byte, 4)))), []Packet{long}},
		"a simple block":          {slices.Concat(begin, le.block(blockSimple, le.u32(6), []byte(data))), []Packet{untimed}},
		"a simple block, cut":     {slices.Concat(le.section(0), le.iface(1, 6), le.block(blockSimple, le.u32(99), []byte(data))), []Packet{{Link: 1, Data: []byte(data), Length: 99}}},
		"options":                 {slices.Concat(begin, le.block(blockEnhanced, one[8:len(one)-4], le.option(1, make([]byte, 1000)), le.option(0, nil)), one), []Packet{want, want}},
		"options that are wrong":  {slices.Concat(le.section(0), le.iface(1, 0, le.u16(2, 60000)), le.block(blockEnhanced, one[8:len(one)-4], le.u16(0, 9, 2, 60000)), one), []Packet{want, want}},
		"blocks to be skipped":    {slices.Concat(begin, le.block(0xbad, make([]byte, 500_000)), le.block(5, le.u32(77)), le.block(4, le.u16(1, 2)), le.block(10, le.u32(1)), one), []Packet{want}},
		"nothing captured":        {slices.Concat(begin, le.packet(0, micros, 0, 6, ""), one), []Packet{none, want}},
		"captured more than sent": {slices.Concat(begin, le.packet(0, micros, 6, 2, data), one), []Packet{want, want}},
		"captured more than there is": {slices.Concat(begin, le.packet(0, micros, 60000, 6, data+"12"), one),
			[]Packet{{Time: at, Link: 1, Data: []byte(data + "12"), Length: 8}, want}},
		"no packet":                {le.section(0), nil},
		"without the last length":  {slices.Concat(begin, one)[:len(begin)+len(one)-4], []Packet{want}},
		"an unknown block, cut":    {slices.Concat(begin, one, le.block(0xbad, make([]byte, 50)))[:len(begin)+len(one)+20], []Packet{want}},
		"an interface of 90 bytes": {slices.Concat(le.section(0), le.iface(1, 0, le.option(2, make([]byte, 70))), one), []Packet{want}},
	} {
		for way, stream := range map[string]io.Reader{"whole": bytes.NewReader(test.file), "in pieces": iotest.OneByteReader(bytes.NewReader(test.file))} {
			source, err := NewReader(stream)
			if err != nil {
				t.Errorf("%s, %s: %v", name, way, err)
				continue
			}
			var p Packet
			n := 0
			for ; err == nil; n++ {
				if err = source.Read(&p); err == nil && n < len(test.want) {
					if w := test.want[n]; !p.Time.Equal(w.Time) || p.Link != w.Link || p.Length != w.Length || !bytes.Equal(p.Data, w.Data) {
						t.Errorf("%s, %s, packet %d: got %v, link %d, %q of %d, want %v", name, way, n, p.Time, p.Link, p.Data, p.Length, w)
					}
				}
			}
			if n-1 != len(test.want) || err != io.EOF || source.Dropped() != 0 {
				t.Errorf("%s, %s: %d packets, %d lost, %v, want %d", name, way, n-1, source.Dropped(), err, len(test.want))
			}
		}
	}
}

// TestBadPcapng checks files that end within a packet, or contradict themselves.
func TestBadPcapng(t *testing.T) {
	le := ng{binary.LittleEndian}
	begin, one := slices.Concat(le.section(0), le.iface(1, 0)), le.packet(0, 1, 6, 6, "packet")
	for name, test := range map[string]struct {
		file    []byte
		dropped uint64
		eof     bool
	}{
		"cut in a packet":       {append(begin[:len(begin):len(begin)], one[:30]...), 1, true},
		"cut in a block's head": {append(begin[:len(begin):len(begin)], one[:6]...), 1, true},
		"a block of 8 bytes":    {slices.Concat(begin, le.u32(0xbad, 8, 8), one), 0, false},
		"a block of 4 GiB":      {slices.Concat(begin, le.u32(0xbad, 0xfffffff0), one), 0, false},
		"a packet of 16 bytes":  {slices.Concat(begin, le.block(blockEnhanced, le.u32(0))), 0, false},
		"an unknown interface":  {slices.Concat(begin, le.packet(1, 1, 6, 6, "packet")), 0, false},
		"no interface":          {slices.Concat(le.section(0), le.block(blockSimple, le.u32(6), []byte("packet"))), 0, false},
		"a short interface":     {slices.Concat(le.section(0), le.block(blockInterface)), 0, false},
		"another version":       {slices.Concat(begin, le.block(blockSection, le.u32(byteOrderMagic), le.u16(2, 0), le.u32(0, 0))), 0, false},
	} {
		source, err := NewReader(bytes.NewReader(test.file))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var p Packet
		if err := source.Read(&p); (err == io.EOF) != test.eof || err == nil || source.Dropped() != test.dropped {
			t.Errorf("%s: got %v and %d lost", name, err, source.Dropped())
		}
	}
	for name, file := range map[string][]byte{
		"version 2.0":  le.block(blockSection, le.u32(byteOrderMagic), le.u16(2, 0), le.u32(0, 0)),
		"version 1.1":  le.section(1),
		"no order":     le.block(blockSection, le.u32(1), le.u16(1, 0), le.u32(0, 0)),
		"a short head": le.section(0)[:27],
	} {
		if _, err := NewReader(bytes.NewReader(file)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: got %v, want %v", name, err, ErrFormat)
		}
	}
}

// FuzzPcapng checks that no file gives more than it has.
func FuzzPcapng(f *testing.F) {
	le := ng{binary.LittleEndian}
	f.Add(slices.Concat(le.section(0), le.iface(1, 0, le.option(9, []byte{0x9f})), le.packet(0, 1, 6, 6, "packet"), le.block(blockSimple, le.u32(6), []byte("packet"))))
	f.Fuzz(func(t *testing.T, file []byte) {
		source, err := NewReader(bytes.NewReader(file))
		var p Packet
		for read := 0; err == nil; read += len(p.Data) {
			if err = source.Read(&p); read > len(file) {
				t.Fatalf("%d bytes of packets in %d", read, len(file))
			}
		}
	})
}
