package monitor

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"time"
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
	bigEndian bool
	unit      time.Duration
}{
	{0xa1, 0xb2, 0xc3, 0xd4}: {true, time.Microsecond},
	{0xd4, 0xc3, 0xb2, 0xa1}: {false, time.Microsecond},
	{0xa1, 0xb2, 0x3c, 0x4d}: {true, time.Nanosecond},
	{0x4d, 0x3c, 0xb2, 0xa1}: {false, time.Nanosecond},
}

// pcapReader reads a pcap stream (draft-ietf-opsawg-pcap) as libpcap does: pcapgo refuses the
// versions before 2.4, and ends at a record whose lengths contradict each other.
type pcapReader struct {
	records
	unit  time.Duration
	minor uint16
	link  LinkType
}

var (
	errNoPcap   = errors.New("no pcap header")
	errNotReady = errors.New("the record is not read yet")
)

func newPcapReader(stream *bufio.Reader) (*pcapReader, error) {
	var head [pcapHeader]byte
	if _, err := io.ReadFull(stream, head[:]); err != nil {
		return nil, errNoPcap
	}
	format, ok := pcapMagic[[4]byte(head[:4])]
	if !ok {
		return nil, errNoPcap
	}
	r := &pcapReader{records: records{stream: stream, swap: format.bigEndian}, unit: format.unit}
	major := r.uint16(head[4:])
	if r.minor = r.uint16(head[6:]); major != 2 || r.minor > 4 {
		return nil, fmt.Errorf("pcap version %d.%d, want 2.0 to 2.4", major, r.minor)
	}
	r.link = LinkType(r.uint32(head[20:]) & 0xffff) // above it are flags
	r.ready, _ = stream.Peek(stream.Buffered())
	return r, nil
}

// read implements [packetReader].
func (r *pcapReader) read(p *Packet, wait bool) error {
	if err := r.fill(recordHeader, wait); err != nil {
		if err == io.EOF && len(r.ready) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	captured, length := r.lengths(r.ready)
	if captured > maxPcapData {
		return fmt.Errorf("a record says that it has %d bytes, want at most %d", captured, maxPcapData)
	}
	whole := recordHeader + int(captured)
	if err := r.fill(whole, wait); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	record := r.ready[:whole]
	r.ready = r.ready[whole:]
	seconds, fraction := int64(r.uint32(record)), int64(r.uint32(record[4:]))
	*p = Packet{
		Time: time.Unix(seconds, fraction*int64(r.unit)).UTC(), Link: r.link,
		Data: record[recordHeader:], Length: max(int(length), int(captured)), // some files say less
	}
	return nil
}

// lengths returns the lengths in the header of a record: of what was captured, and of the packet.
func (r *pcapReader) lengths(head []byte) (captured, length uint32) {
	captured, length = r.uint32(head[8:]), r.uint32(head[12:])
	// Programs before version 2.3 wrote the lengths in the other order, and some of 2.3.
	if r.minor < 3 || r.minor == 3 && captured > length {
		captured, length = length, captured
	}
	return captured, length
}
