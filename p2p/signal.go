package p2p

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/quic-go/quic-go/quicvarint"
)

// The peers of a connection talk to each other about it on its first
// bidirectional stream, in frames:
//
//	Frame {
//	  Type (i),
//	  Length (i),
//	  Payload (..),
//	}
//
// with the variable-length integers of RFC 9000 §16. A receiver skips types
// that it does not know and what follows the fields that it does, so that old
// and new versions understand each other as far as they can.
type frameType uint64

const (
	// frameHello is the first frame of either side:
	// Version (i), Proof Length (i), Proof (..).
	frameHello frameType = 0x01
	// frameKeepAlive has no payload. Its acknowledgement is all it is for.
	frameKeepAlive frameType = 0x02
)

// signalVersion is the version of the frames that this package speaks.
const signalVersion = 1

// maxFrame bounds the payload of one frame, in bytes.
const maxFrame = 1 << 10

// errSignal is wrapped by errors about what is no frame.
var errSignal = errors.New("malformed signalling")

// frame is one message about the connection. payload is valid until the next
// frame is read.
type frame struct {
	kind    frameType
	payload []byte
}

func (f frame) append(b []byte) []byte {
	b = quicvarint.Append(b, uint64(f.kind))
	b = quicvarint.Append(b, uint64(len(f.payload)))
	return append(b, f.payload...)
}

// hello says which version a side speaks, and proves that it has had the
// offer, if it is the side that got it.
type hello struct {
	version uint64
	proof   []byte
}

func (h hello) frame() frame {
	b := quicvarint.Append(nil, h.version)
	b = quicvarint.Append(b, uint64(len(h.proof)))
	return frame{frameHello, append(b, h.proof...)}
}

func parseHello(f frame) (hello, error) {
	if f.kind != frameHello {
		return hello{}, fmt.Errorf("%w: first frame is of type %d, not a hello", errSignal, f.kind)
	}
	version, n, err := quicvarint.Parse(f.payload)
	if err != nil || version == 0 {
		return hello{}, fmt.Errorf("%w: hello without version", errSignal)
	}
	rest := f.payload[n:]
	length, n, err := quicvarint.Parse(rest)
	if err != nil || length > uint64(len(rest)-n) {
		return hello{}, fmt.Errorf("%w: hello without proof", errSignal)
	}
	return hello{version: version, proof: rest[n : n+int(length)]}, nil
}

// proofLabel names the exporter (RFC 8446 §7.5) that binds a proof to one
// connection.
const proofLabel = "EXPORTER-quicway-offer"

// proof shows knowledge of the offer's secret to whoever is at the other end
// of this very TLS connection: a relay that has seen the packets of the offer,
// but not the offer, cannot make it, nor pass another's on.
func proof(state tls.ConnectionState, secret offerSecret) ([]byte, error) {
	key, err := state.ExportKeyingMaterial(proofLabel, nil, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("export keying material: %w", err)
	}
	mac := hmac.New(sha256.New, secret[:])
	mac.Write(key)
	return mac.Sum(nil), nil
}

// signal is one side's view of the signalling stream.
type signal struct {
	stream io.ReadWriter
	reader quicvarint.Reader
	buf    []byte // of the last frame

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
