package monitor

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// readAhead is how much of a file is read at a time.
const readAhead = 1 << 20

// pcapng begins with a Section Header Block.
var pcapngMagic = []byte{0x0a, 0x0d, 0x0d, 0x0a}

// packetReader is what both formats' readers are.
type packetReader interface {
	ZeroCopyReadPacketData() ([]byte, gopacket.CaptureInfo, error)
}

// file is a capture that somebody else has made.
type file struct {
	packets packetReader
	link    func(index int) layers.LinkType
	closer  io.Closer // nil: the caller's
	closed  atomic.Bool
	dropped atomic.Uint64
}

var _ Source = (*file)(nil)

// OpenFile opens a pcap or pcapng file; "-" is the standard input. It returns an
// error that wraps ErrFormat for another file.
func OpenFile(name string) (Source, error) {
	if name == "-" {
		return NewReader(os.Stdin)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("monitor: %w", err)
	}
	src, err := NewReader(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", err, name), f.Close())
	}
	src.(*file).closer = f
	return src, nil
}

// NewReader reads a pcap or pcapng stream, which its Close does not close, as
// tcpdump -w - writes it. It returns an error that wraps ErrFormat for another
// stream.
func NewReader(r io.Reader) (Source, error) {
	b := bufio.NewReaderSize(r, readAhead)
	magic, err := b.Peek(len(pcapngMagic))
	if err != nil {
		return nil, fmt.Errorf("monitor: %w: %w", ErrFormat, err)
	}
	if bytes.Equal(magic, pcapngMagic) {
		ng, err := pcapgo.NewNgReader(b, pcapgo.NgReaderOptions{WantMixedLinkType: true})
		if err != nil {
			return nil, fmt.Errorf("monitor: %w: %w", ErrFormat, err)
		}
		return &file{packets: ng, link: func(index int) layers.LinkType {
			i, err := ng.Interface(index)
			if err != nil {
				return ng.LinkType()
			}
			return i.LinkType
		}}, nil
	}
	pcap, err := pcapgo.NewReader(b)
	if err != nil {
		return nil, fmt.Errorf("monitor: %w: %w", ErrFormat, err)
	}
	return &file{packets: pcap, link: func(int) layers.LinkType { return pcap.LinkType() }}, nil
}

// Read implements [Source]. A file that ends within a packet ends before it.
func (f *file) Read(p *Packet) error {
	if f.closed.Load() {
		return net.ErrClosed
	}
	data, info, err := f.packets.ZeroCopyReadPacketData()
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		f.dropped.Add(1)
		return io.EOF
	case errors.Is(err, io.EOF):
		return io.EOF
	case err != nil && f.closed.Load():
		return net.ErrClosed
	case err != nil:
		return fmt.Errorf("monitor: read capture: %w", err)
	}
	*p = Packet{
		Time: info.Timestamp, Link: LinkType(f.link(info.InterfaceIndex)),
		Data: data, Length: info.Length,
	}
	return nil
}

// Live implements [Source].
func (f *file) Live() bool { return false }

// Dropped implements [Source]: packets that the file ends within.
func (f *file) Dropped() uint64 { return f.dropped.Load() }

// Close implements [Source].
func (f *file) Close() error {
	if f.closed.Swap(true) || f.closer == nil {
		return nil
	}
	return f.closer.Close()
}
