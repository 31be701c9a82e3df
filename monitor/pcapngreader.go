package monitor

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// Types of the blocks of pcapng that are read (draft-ietf-opsawg-pcapng).
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockEnhanced  = 6
)

const (
	blockOverhead  = 12 // the least length of a block: its type, and its length twice
	byteOrderMagic = 0x1a2b3c4d
	// maxInterfaces bounds the interfaces of a section.
	maxInterfaces = 1 << 16
)

// pcapngReader reads a pcapng stream. What it need not know it skips unread, so that nothing in it
// can end the file: pcapgo reads all options and names, and only version 1.0.
type pcapngReader struct {
	records
	interfaces []pcapngInterface // of the section
	rest       int               // bytes of the block that are left
}

// pcapngInterface is an interface of a section.
type pcapngInterface struct {
	link LinkType
	snap int // the limit of bytes of a packet
	time timeFormat
}

func newPcapngReader(stream *bufio.Reader) (*pcapngReader, error) {
	r := &pcapngReader{records: records{stream: stream}}
	r.ready, _ = stream.Peek(stream.Buffered())
	if err := r.section(true); err != nil {
		return nil, err
	}
	return r, nil
}

// read implements [packetReader].
func (r *pcapngReader) read(p *Packet, wait bool) error {
	for {
		if err := r.skip(r.rest, wait); err != nil {
			return err // no packet is lost
		}
		r.rest = 0
		if err := r.fill(blockOverhead, wait); err != nil {
			if err == io.EOF && len(r.ready) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		kind, length := r.uint32(r.ready), int64(r.uint32(r.ready[4:]))
		if kind == blockSection {
			if err := r.section(wait); err != nil {
				return cutShort(err)
			}
			continue
		}
		if length < blockOverhead || length > math.MaxInt32 {
			return fmt.Errorf("a block says that it has %d bytes", length)
		}
		if found, err := r.block(kind, int(length), p, wait); found || err != nil {
			return cutShort(err)
		}
	}
}

// cutShort returns the error for the end of the stream within a block.
func cutShort(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// block reads a block other than that of a section. found reports whether it has a packet.
func (r *pcapngReader) block(kind uint32, length int, p *Packet, wait bool) (found bool, err error) {
	switch kind {
	case blockInterface:
		err = r.iface(length, wait)
	case blockEnhanced, blockPacket:
		return r.packet(kind, length, p, wait)
	case blockSimple:
		return r.simplePacket(length, p, wait)
	default:
		r.rest = length
	}
	return false, err
}

// section begins a section: other interfaces, and maybe another byte order.
func (r *pcapngReader) section(wait bool) error {
	const head = 28
	if err := r.fill(head, wait); err != nil {
		return err
	}
	switch uint32(byteOrderMagic) {
	case binary.LittleEndian.Uint32(r.ready[8:]):
		r.swap = false
	case binary.BigEndian.Uint32(r.ready[8:]):
		r.swap = true
	default:
		return errors.New("a section of pcapng without a byte order")
	}
	// Some programs write version 1.2, which is the same as 1.0.
	if major, minor := r.uint16(r.ready[12:]), r.uint16(r.ready[14:]); major != 1 || minor != 0 && minor != 2 {
		return fmt.Errorf("pcapng version %d.%d, want 1.0 or 1.2", major, minor)
	}
	length := int64(r.uint32(r.ready[4:]))
	if length < head || length > math.MaxInt32 {
		return fmt.Errorf("a section says that its header has %d bytes", length)
	}
	r.rest, r.interfaces = int(length), r.interfaces[:0]
	return nil
}

// iface reads the description of an interface.
func (r *pcapngReader) iface(length int, wait bool) error {
	const head = 16
	whole := min(length, maxPcapData)
	if err := r.fill(whole, wait); err != nil {
		return err
	}
	if length < head+4 {
		return fmt.Errorf("an interface has %d bytes", length)
	}
	if len(r.interfaces) >= maxInterfaces {
		return fmt.Errorf("more than %d interfaces", maxInterfaces)
	}
	b := r.ready[:whole-4] // without the length at the end
	i := pcapngInterface{link: LinkType(r.uint16(b[8:])), snap: maxPcapData, time: timeFormat{exponent: 6}}
	if snap := r.uint32(b[12:]); snap != 0 && snap < maxPcapData {
		i.snap = int(snap)
	}
	r.options(b[head:], func(code uint16, value []byte) {
		switch {
		case code == 9 && len(value) >= 1: // if_tsresol
			i.time.binary, i.time.exponent = value[0]&0x80 != 0, value[0]&0x7f
		case code == 14 && len(value) >= 8: // if_tsoffset
			i.time.offset = int64(r.uint64(value))
		}
	})
	r.interfaces = append(r.interfaces, i)
	r.rest = length
	return nil
}

// options calls yield for each option in b, as far as they are valid.
func (r *pcapngReader) options(b []byte, yield func(code uint16, value []byte)) {
	for len(b) >= 4 {
		code, n := r.uint16(b), int(r.uint16(b[2:]))
		padded := (n + 3) &^ 3
		if b = b[4:]; code == 0 || len(b) < padded {
			return
		}
		yield(code, b[:n])
		b = b[padded:]
	}
}

// packet reads a block with the packet of an interface, and its time.
func (r *pcapngReader) packet(kind uint32, length int, p *Packet, wait bool) (found bool, err error) {
	const head = 28
	if length < head+4 {
		return false, fmt.Errorf("a packet's block has %d bytes", length)
	}
	if err := r.fill(head, wait); err != nil {
		return false, err
	}
	number := int(r.uint32(r.ready[8:]))
	if kind == blockPacket {
		number = int(r.uint16(r.ready[8:]))
	}
	captured := int(min(r.uint32(r.ready[20:]), maxPcapData))
	captured = min(captured, length-head-4) // some files say more
	if err := r.fill(head+captured, wait); err != nil {
		return false, err
	}
	if number >= len(r.interfaces) || number < 0 {
		return false, fmt.Errorf("a packet of interface %d, of %d", number, len(r.interfaces))
	}
	i, b := &r.interfaces[number], r.ready
	*p = Packet{
		Time: i.time.time(uint64(r.uint32(b[12:]))<<32 | uint64(r.uint32(b[16:]))), Link: i.link,
		Data: b[head : head+captured], Length: max(int(r.uint32(b[24:])), captured), // some files say less
	}
	r.ready, r.rest = b[head+captured:], length-head-captured
	return true, nil
}

// simplePacket reads a block with a packet of the first interface, which has no time.
func (r *pcapngReader) simplePacket(length int, p *Packet, wait bool) (found bool, err error) {
	const head = 12
	if length < head+4 {
		return false, fmt.Errorf("a simple packet's block has %d bytes", length)
	}
	if len(r.interfaces) == 0 {
		return false, errors.New("a packet without an interface")
	}
	if err := r.fill(head, wait); err != nil {
		return false, err
	}
	i, size := &r.interfaces[0], int(r.uint32(r.ready[8:]))
	captured := min(max(size, 0), i.snap, length-head-4)
	if err := r.fill(head+captured, wait); err != nil {
		return false, err
	}
	*p = Packet{Link: i.link, Data: r.ready[head : head+captured], Length: max(size, captured)}
	r.ready, r.rest = r.ready[head+captured:], length-head-captured
	return true, nil
}
