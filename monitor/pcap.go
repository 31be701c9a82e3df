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
)

// readAhead is the size of the read buffer of a file, in bytes.
const readAhead = 1<<18 + 1<<15

// The first bytes of files: of a pcapng Section Header Block, and of gzip (RFC 1952
// §2.3).
var (
	pcapngMagic = []byte{0x0a, 0x0d, 0x0d, 0x0a}
	gzipMagic   = []byte{0x1f, 0x8b}
)

// file is a source that reads a pcap or pcapng stream.
type file struct {
	packets packetReader
	closer  io.Closer // nil: the caller closes it
	closed  atomic.Bool
	dropped atomic.Uint64
}

var _ Source = (*file)(nil)

// packetReader reads the packets of a stream.
type packetReader interface {
	// read sets the fields of p to the next packet. Its data is valid until the next call. At the end
	// of the stream the error is io.EOF, and within a packet io.ErrUnexpectedEOF. If wait is false and
	// the packet has to be read from the stream first, read leaves it and returns errNotReady.
	read(p *Packet, wait bool) error
}

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
	f := new(file)
	if bytes.Equal(magic, pcapngMagic) {
		f.packets, err = newPcapngReader(b)
	} else {
		f.packets, err = newPcapReader(b)
	}
	if err != nil {
		return nil, fmt.Errorf("monitor: %w: %w", ErrFormat, err)
	}
	return f, nil
}

// Read implements [Source]. It returns io.EOF for a packet that is cut off by the end
// of the file.
func (f *file) Read(p *Packet) error {
	if f.closed.Load() {
		return net.ErrClosed
	}
	if err := f.packets.read(p, true); err != nil {
		return f.ended(err)
	}
	return nil
}

// ended returns the error of Read for an error of the reader.
func (f *file) ended(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		f.dropped.Add(1)
		return io.EOF
	case errors.Is(err, io.EOF):
		return io.EOF
	case f.closed.Load():
		return net.ErrClosed
	}
	return fmt.Errorf("monitor: read capture: %w", err)
}

// readReady is Read if that need not wait for the file. Otherwise, and at an error, it returns false,
// and the next Read returns what there is.
func (f *file) readReady(p *Packet) bool { return !f.closed.Load() && f.packets.read(p, false) == nil }

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
