package wire

import (
	"errors"
	"fmt"
	"iter"
)

// ErrCrypto: CRYPTO frames that do not make a handshake message within bounds.
var ErrCrypto = errors.New("unusable CRYPTO frames")

// Types of the frames that an Initial may hold (RFC 9000 §12.4, table 3).
const (
	framePadding   = 0x00
	framePing      = 0x01
	frameACK       = 0x02
	frameACKECN    = 0x03
	frameCrypto    = 0x06
	frameConnClose = 0x1c
)

// CryptoFrame is a piece of the handshake (RFC 9000 §19.6). Data is a view.
type CryptoFrame struct {
	Offset uint64
	Data   []byte
}

// CryptoFrames yields the CRYPTO frames in the payload of an Initial, in the
// order that they are in. It stops after an error, ErrTruncated or ErrInvalid.
func CryptoFrames(payload []byte) iter.Seq2[CryptoFrame, error] {
	return cryptoFrames(payload, frameCrypto)
}

// cryptoFrames takes frames of type crypto for CRYPTO.
func cryptoFrames(payload []byte, crypto uint64) iter.Seq2[CryptoFrame, error] {
	return func(yield func(CryptoFrame, error) bool) {
		for r := (reader{payload}); len(r.b) > 0; {
			kind, ok := r.varint()
			if !ok {
				yield(CryptoFrame{}, ErrTruncated)
				return
			}
			if kind == crypto {
				f, ok := r.crypto()
				if !ok {
					yield(CryptoFrame{}, ErrTruncated)
					return
				}
				if !yield(f, nil) {
					return
				}
				continue
			}
			if err := r.skip(kind); err != nil {
				yield(CryptoFrame{}, err)
				return
			}
		}
	}
}

// reader consumes a payload.
type reader struct{ b []byte }

func (r *reader) varint() (uint64, bool) {
	v, n := varint(r.b)
	r.b = r.b[n:]
	return v, n > 0
}

// varints skips n integers.
func (r *reader) varints(n uint64) bool {
	for ; n > 0; n-- {
		if _, ok := r.varint(); !ok {
			return false
		}
	}
	return true
}

// bytes takes bytes with their length before them.
func (r *reader) bytes() ([]byte, bool) {
	field, rest, ok := cutBytes(r.b)
	if ok {
		r.b = rest
	}
	return field, ok
}

func (r *reader) crypto() (CryptoFrame, bool) {
	offset, ok := r.varint()
	if !ok {
		return CryptoFrame{}, false
	}
	data, ok := r.bytes()
	return CryptoFrame{offset, data}, ok
}

// skip goes past a frame of another kind.
func (r *reader) skip(kind uint64) error {
	ok := true
	switch kind {
	case framePadding, framePing:
	case frameACK:
		ok = r.ack()
	case frameACKECN:
		ok = r.ack() && r.varints(3)
	case frameConnClose:
		if ok = r.varints(2); ok {
			_, ok = r.bytes()
		}
	default:
		return fmt.Errorf("%w: frame of type %#x in an Initial", ErrInvalid, kind)
	}
	if !ok {
		return ErrTruncated
	}
	return nil
}

// ack skips an ACK frame without its ECN counts (RFC 9000 §19.3).
func (r *reader) ack() bool {
	if !r.varints(2) {
		return false
	}
	ranges, ok := r.varint()
	if !ok || ranges > uint64(len(r.b)) {
		return false
	}
	return r.varints(1 + 2*ranges)
}

// Bounds of a [CryptoStream].
const (
	// MaxClientHello is the largest ClientHello that is put together.
	MaxClientHello = 16 << 10
	// maxGaps bounds the pieces that wait for what is between them.
	maxGaps = 64
)

// helloHeader is the length of a handshake message's header: a type and a
// length of 24 bits (RFC 8446 §4).
const helloHeader = 4

// CryptoStream puts the ClientHello together from CRYPTO frames, in any order
// and overlapping. What arrives first stays. The zero value is empty.
type CryptoStream struct {
	buf    []byte
	ranges []span // what of buf is there: sorted, and apart from each other
}

// span is the bytes from lo to before hi.
type span struct{ lo, hi int }

// Add takes a piece. It returns ErrCrypto if that is out of bounds, and keeps
// what it has.
func (s *CryptoStream) Add(offset uint64, data []byte) error {
	if offset > MaxClientHello || offset+uint64(len(data)) > MaxClientHello {
		return fmt.Errorf("%w: beyond %d bytes", ErrCrypto, MaxClientHello)
	}
	if len(data) == 0 {
		return nil
	}
	lo := int(offset)
	piece := span{lo, lo + len(data)}
	ranges, err := s.merge(piece)
	if err != nil {
		return err
	}
	if piece.hi > len(s.buf) {
		s.buf = append(s.buf, make([]byte, piece.hi-len(s.buf))...)
	}
	s.fill(piece, data)
	s.ranges = ranges
	return nil
}

// fill copies what of the piece is not there yet.
func (s *CryptoStream) fill(piece span, data []byte) {
	at := piece.lo
	for _, have := range s.ranges {
		if have.hi <= at {
			continue
		}
		if have.lo >= piece.hi {
			break
		}
		if have.lo > at {
			copy(s.buf[at:have.lo], data[at-piece.lo:])
		}
		at = have.hi
	}
	if at < piece.hi {
		copy(s.buf[at:piece.hi], data[at-piece.lo:])
	}
}

// merge returns the ranges with a piece among them.
func (s *CryptoStream) merge(piece span) ([]span, error) {
	out := make([]span, 0, len(s.ranges)+1)
	i := 0
	for ; i < len(s.ranges) && s.ranges[i].hi < piece.lo; i++ {
		out = append(out, s.ranges[i])
	}
	for ; i < len(s.ranges) && s.ranges[i].lo <= piece.hi; i++ {
		piece = span{min(piece.lo, s.ranges[i].lo), max(piece.hi, s.ranges[i].hi)}
	}
	out = append(append(out, piece), s.ranges[i:]...)
	if len(out) > maxGaps {
		return nil, fmt.Errorf("%w: more than %d pieces", ErrCrypto, maxGaps)
	}
	return out, nil
}

// contiguous is how many bytes from the start are there.
func (s *CryptoStream) contiguous() int {
	if len(s.ranges) == 0 || s.ranges[0].lo > 0 {
		return 0
	}
	return s.ranges[0].hi
}

// ClientHelloLen returns the length of the ClientHello with its header, or 0
// if it is not known yet, or the stream begins with something else.
func (s *CryptoStream) ClientHelloLen() int { return s.messageLen(typeClientHello) }

// Complete says whether all of the ClientHello is there.
func (s *CryptoStream) Complete() bool { return s.ClientHello() != nil }

// ClientHello returns the message with its header once it is complete, or nil.
// It is valid until the next Add.
func (s *CryptoStream) ClientHello() []byte { return s.message(typeClientHello) }

// ServerHello is the same of what a server sends.
func (s *CryptoStream) ServerHello() []byte { return s.message(typeServerHello) }

// Types of handshake messages (RFC 8446 §4).
const (
	typeClientHello = 1
	typeServerHello = 2
)

// messageLen is the length of the first message, if it is of this type.
func (s *CryptoStream) messageLen(kind byte) int {
	if s.contiguous() < helloHeader || s.buf[0] != kind {
		return 0
	}
	return helloHeader + int(s.buf[1])<<16 + int(s.buf[2])<<8 + int(s.buf[3])
}

func (s *CryptoStream) message(kind byte) []byte {
	n := s.messageLen(kind)
	if n == 0 || s.contiguous() < n {
		return nil
	}
	return s.buf[:n]
}
