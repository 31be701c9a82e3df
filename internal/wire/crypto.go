package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
)

// ErrCrypto is wrapped by the errors about CRYPTO frames that are beyond the bounds of a
// [CryptoStream].
var ErrCrypto = errors.New("unusable CRYPTO frames")

// Types of the frames that an Initial may contain (RFC 9000 §12.4, table 3).
const (
	framePadding   = 0x00
	framePing      = 0x01
	frameACK       = 0x02
	frameACKECN    = 0x03
	frameCrypto    = 0x06
	frameConnClose = 0x1c
	frameAppClose  = 0x1d // not in Initials, but [Dialect.FindClose] reads it
)

// CryptoFrame is a CRYPTO frame (RFC 9000 §19.6). Data is part of the payload that the frame
// was read from.
type CryptoFrame struct {
	Offset uint64
	Data   []byte
}

// CryptoFrames yields the CRYPTO frames in the payload of an Initial, in their order. After an
// error, which wraps ErrTruncated or ErrInvalid, it stops.
func CryptoFrames(payload []byte) iter.Seq2[CryptoFrame, error] {
	return cryptoFrames(payload, frameCrypto)
}

// cryptoFrames is CryptoFrames with another type of CRYPTO frames.
func cryptoFrames(payload []byte, crypto uint64) iter.Seq2[CryptoFrame, error] {
	return func(yield func(CryptoFrame, error) bool) {
		r := reader{payload}
		for r.skipPadding(); len(r.b) > 0; r.skipPadding() {
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

// skipPadding skips PADDING frames of one byte, which most Initials end with.
func (r *reader) skipPadding() {
	b := r.b
	for len(b) >= 8 && binary.LittleEndian.Uint64(b) == 0 {
		b = b[8:]
	}
	for len(b) > 0 && b[0] == framePadding {
		b = b[1:]
	}
	r.b = b
}

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

// bytes reads bytes that are preceded by their length.
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

// skip skips a frame that is not a CRYPTO frame.
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
	// MaxClientHello is the maximum size of the handshake message, in bytes.
	MaxClientHello = 16 << 10
	// maxGaps is the maximum number of pieces with gaps between them.
	maxGaps = 64
)

// helloHeader is the length of a handshake message's header: a type and a
// length of 24 bits (RFC 8446 §4).
const helloHeader = 4

// CryptoStream assembles the first handshake message, such as a ClientHello, from CRYPTO
// frames. They may arrive in any order, and overlap: the data that arrives first is kept. The
// zero value is an empty stream.
type CryptoStream struct {
	buf    []byte
	ranges []span // the parts of buf that have arrived, sorted, with gaps between them
}

// span is the bytes from lo up to, but not including, hi.
type span struct{ lo, hi int }

// Add adds the data of a frame. If the frame is out of bounds, Add returns an error that wraps
// ErrCrypto, and does not change the stream.
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

// fill copies those parts of the piece that have not arrived yet.
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

// merge returns the ranges after a piece has been added.
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

// contiguous returns how many bytes from the start on have arrived.
func (s *CryptoStream) contiguous() int {
	if len(s.ranges) == 0 || s.ranges[0].lo > 0 {
		return 0
	}
	return s.ranges[0].hi
}

// Contiguous returns what has arrived from the start on. It is valid until the next Add.
func (s *CryptoStream) Contiguous() []byte { return s.buf[:s.contiguous()] }

// ClientHelloLen returns the length of the ClientHello including its header, or 0 if the length
// has not arrived yet or the first message is not a ClientHello.
func (s *CryptoStream) ClientHelloLen() int { return s.messageLen(typeClientHello) }

// Complete says whether the ClientHello has arrived completely.
func (s *CryptoStream) Complete() bool { return s.ClientHello() != nil }

// ClientHello returns the ClientHello including its header, or nil if it is not complete. It is
// valid until the next Add.
func (s *CryptoStream) ClientHello() []byte { return s.message(typeClientHello) }

// ServerHello returns the ServerHello including its header, or nil if it is not complete. It is
// valid until the next Add.
func (s *CryptoStream) ServerHello() []byte { return s.message(typeServerHello) }

// Types of handshake messages (RFC 8446 §4).
const (
	typeClientHello = 1
	typeServerHello = 2
)

// messageLen returns the length of the first message, or 0 if it is not known or the message is
// of another type.
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
