package monitor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// The sizes of a pcap file's header and of a record's, in bytes, and the longest packet that
// libpcap reads.
const (
	pcapHeader   = 24
	recordHeader = 16
	maxPcapData  = 1 << 18
)

// pcapMagic are the first bytes of a pcap file, by byte order and by the unit of its times.
var pcapMagic = map[[4]byte]struct {
	order binary.ByteOrder
	unit  time.Duration
}{
	{0xa1, 0xb2, 0xc3, 0xd4}: {binary.BigEndian, time.Microsecond},
	{0xd4, 0xc3, 0xb2, 0xa1}: {binary.LittleEndian, time.Microsecond},
	{0xa1, 0xb2, 0x3c, 0x4d}: {binary.BigEndian, time.Nanosecond},
	{0x4d, 0x3c, 0xb2, 0xa1}: {binary.LittleEndian, time.Nanosecond},
}

// pcapReader reads a pcap stream (draft-ietf-opsawg-pcap) as libpcap does: pcapgo refuses the
// versions before 2.4, and ends at a record whose lengths contradict each other.
type pcapReader struct {
	r     io.Reader
	order binary.ByteOrder
	unit  time.Duration
	minor uint16
	link  layers.LinkType
	head  [recordHeader]byte
	data  []byte
}

var errNoPcap = errors.New("no pcap header")

func newPcapReader(r io.Reader) (*pcapReader, error) {
	var head [pcapHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, errNoPcap
	}
	format, ok := pcapMagic[[4]byte(head[:4])]
	if !ok {
		return nil, errNoPcap
	}
	p := &pcapReader{r: r, order: format.order, unit: format.unit}
	major := p.order.Uint16(head[4:])
	if p.minor = p.order.Uint16(head[6:]); major != 2 || p.minor > 4 {
		return nil, fmt.Errorf("pcap version %d.%d, want 2.0 to 2.4", major, p.minor)
	}
	p.link = layers.LinkType(p.order.Uint32(head[20:]) & 0xffff) // above it are flags
	return p, nil
}

// ZeroCopyReadPacketData returns the next packet, which is valid until the next call. It returns
// io.EOF at the end of the stream, and io.ErrUnexpectedEOF within a record.
func (p *pcapReader) ZeroCopyReadPacketData() ([]byte, gopacket.CaptureInfo, error) {
	var info gopacket.CaptureInfo
	if _, err := io.ReadFull(p.r, p.head[:]); err != nil {
		return nil, info, err
	}
	captured, length := p.order.Uint32(p.head[8:]), p.order.Uint32(p.head[12:])
	// Programs before version 2.3 wrote the lengths in the other order, and some of 2.3.
	if p.minor < 3 || p.minor == 3 && captured > length {
		captured, length = length, captured
	}
	if captured > maxPcapData {
		return nil, info, fmt.Errorf("a record says that it has %d bytes, want at most %d", captured, maxPcapData)
	}
	if int(captured) > cap(p.data) {
		p.data = make([]byte, captured)
	}
	p.data = p.data[:captured]
	if _, err := io.ReadFull(p.r, p.data); err != nil {
		return nil, info, io.ErrUnexpectedEOF
	}
	fraction := time.Duration(p.order.Uint32(p.head[4:])) * p.unit
	info = gopacket.CaptureInfo{
		Timestamp:     time.Unix(int64(p.order.Uint32(p.head[:])), 0).Add(fraction).UTC(),
		CaptureLength: int(captured),
		Length:        int(length),
	}
	return p.data, info, nil
}
