package p2p

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/quic-go/quic-go/quicvarint"
)

// The peers of a connection exchange frames about it on its first bidirectional stream:
//
//	Frame {
//	  Type (i),
//	  Length (i),
//	  Payload (..),
//	}
//
// with the variable-length integers of RFC 9000 §16. A receiver skips frames of types
// that it does not know, and ignores what follows the fields that it knows, so that old
// and new versions work together.
type frameType uint64

const (
	// frameHello is the first frame of either side:
	// Version (i), Proof Length (i), Proof (..).
	frameHello frameType = 0x01
	// frameKeepAlive has no payload. It only makes the peer acknowledge it.
	frameKeepAlive frameType = 0x02
)

// signalVersion is the version of the frames.
const signalVersion = 1

// maxFrame bounds the payload of one frame, in bytes.
const maxFrame = 1 << 10

// errSignal is wrapped by errors about malformed frames.
var errSignal = errors.New("malformed signalling")

// frame is one message about the connection. The payload of a frame that was read is
// valid until the next one is read.
type frame struct {
	kind    frameType
	payload []byte
}

func (f frame) append(b []byte) []byte {
	b = quicvarint.Append(b, uint64(f.kind))
	b = quicvarint.Append(b, uint64(len(f.payload)))
	return append(b, f.payload...)
}

// signal reads and writes frames on the signalling stream.
type signal struct {
	stream io.ReadWriter
	reader quicvarint.Reader
	buf    []byte // of the last frame
	// greeted is closed when nobody waits for the peer's hello any more, and frames may
	// be read. nil: they may be read at once.
	greeted chan struct{}

	mu sync.Mutex // guards writes
}

func newSignal(stream io.ReadWriter) *signal {
	return &signal{stream: stream, reader: quicvarint.NewReader(stream)}
}

// write sends a frame. It may be called concurrently.
func (s *signal) write(f frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.stream.Write(f.append(nil))
	return err
}

// read returns the next frame.
func (s *signal) read() (frame, error) {
	kind, err := quicvarint.Read(s.reader)
	if err != nil {
		return frame{}, err
	}
	length, err := quicvarint.Read(s.reader)
	if err != nil {
		return frame{}, unexpected(err)
	}
	if length > maxFrame {
		return frame{}, fmt.Errorf("%w: frame of %d bytes", errSignal, length)
	}
	if s.buf == nil {
		s.buf = make([]byte, maxFrame)
	}
	payload := s.buf[:length]
	if _, err := io.ReadFull(s.reader, payload); err != nil {
		return frame{}, unexpected(err)
	}
	return frame{frameType(kind), payload}, nil
}

// unexpected is the error of a stream that ends within a frame.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
