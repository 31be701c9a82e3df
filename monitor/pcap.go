package monitor

import (
	"bufio"
	"bytes"
	"compress/gzip"
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

// readAhead is the size of the read buffer of a file, in bytes.
const readAhead = 1 << 20

// The first bytes of files: of a pcapng Section Header Block, and of gzip (RFC 1952
// §2.3).
var (
	pcapngMagic = []byte{0x0a, 0x0d, 0x0d, 0x0a}
	gzipMagic   = []byte{0x1f, 0x8b}
)

// packetReader is implemented by the readers of both formats.
type packetReader interface {
	ZeroCopyReadPacketData() ([]byte, gopacket.CaptureInfo, error)
}

// file is a source that reads a pcap or pcapng stream.
type file struct {
	packets packetReader
	link    func(index int) layers.LinkType
	closer  io.Closer // nil: the caller closes it
	closed  atomic.Bool
	dropped atomic.Uint64
}

var _ Source = (*file)(nil)

// OpenFile opens a pcap or pcapng file, which may be compressed with gzip. "-" is
// the standard input. The error wraps [ErrFormat] if the file has another format.
func OpenFile(name string) (Source, error) {
	f, err := open(name)
	if err != nil {
		return nil, fmt.Errorf("monitor: %w", err)
	}
	src, err := newFile(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", err, name), f.Close())
	}
	src.closer = f
	return src, nil
}

// open opens a file. If the standard input is a pipe it opens the pipe again, where
// the system allows it: closing the shell's own descriptor would not end a read
// that waits.
func open(name string) (*os.File, error) {
	if name != "-" {
		return os.Open(name)
	}
	if info, err := os.Stdin.Stat(); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
		if f, err := os.Open(fmt.Sprintf("/dev/fd/%d", os.Stdin.Fd())); err == nil {
			return f, nil
		}
	}
	return os.Stdin, nil
}

// NewReader returns a source that reads a pcap or pcapng stream, such as that of
// tcpdump -w -, which may be compressed with gzip. The source's Close does not close
// r and does not end a Read that waits for r. The error wraps [ErrFormat] if the
// stream has another format.
func NewReader(r io.Reader) (Source, error) {
	f, err := newFile(r)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func newFile(r io.Reader) (*file, error) {
	b := bufio.NewReaderSize(r, readAhead)
	magic, err := b.Peek(len(pcapngMagic))
	if err != nil {
		return nil, fmt.Errorf("monitor: %w: %w", ErrFormat, err)
	}
	if bytes.HasPrefix(magic, gzipMagic) {
		unzipped, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("monitor: %w: %w", ErrFormat, err)
		}
		b = bufio.NewReaderSize(unzipped, readAhead)
		if magic, err = b.Peek(len(pcapngMagic)); err != nil {
			return nil, fmt.Errorf("monitor: %w: %w", ErrFormat, err)
		}
	}
	if bytes.Equal(magic, pcapngMagic) {
		return newPcapng(b)
	}
	pcap, err := newPcapReader(b)
	if err != nil {
		return nil, fmt.Errorf("monitor: %w: %w", ErrFormat, err)
	}
	return &file{packets: pcap, link: func(int) layers.LinkType { return pcap.link }}, nil
}

func newPcapng(r io.Reader) (*file, error) {
	ng, err := pcapgo.NewNgReader(r, pcapgo.NgReaderOptions{WantMixedLinkType: true})
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

// Read implements [Source]. It returns io.EOF for a packet that is cut off by the end
// of the file.
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
		Data: data, Length: max(info.Length, len(data)), // some files say less
	}
	return nil
}

// Live implements [Source].
func (f *file) Live() bool { return false }

// Dropped implements [Source]. It counts a packet that is cut off by the end of the
// file.
func (f *file) Dropped() uint64 { return f.dropped.Load() }

// Close implements [Source].
func (f *file) Close() error {
	if f.closed.Swap(true) || f.closer == nil {
		return nil
	}
	return f.closer.Close()
}
