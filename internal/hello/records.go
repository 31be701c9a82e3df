package hello

import (
	"encoding/binary"
	"errors"
)

var (
	// ErrMore is returned while a message is not complete.
	ErrMore = errors.New("incomplete TLS message")
	// ErrNotTLS is returned for streams that do not begin with a TLS handshake record.
	ErrNotTLS = errors.New("not TLS")
	// ErrTooLong is returned for messages of more than MaxMessage bytes.
	ErrTooLong = errors.New("TLS message is too long")
)

const (
	// MaxMessage is the maximum length of a ClientHello with its header, in bytes.
	MaxMessage = 16 << 10
	// MaxStream is the number of bytes of a stream in which a ClientHello of MaxMessage
	// bytes has to be complete. It leaves room for the headers of 400 records.
	MaxStream = MaxMessage + 2<<10

	recordHeader    = 5
	maxRecord       = 16 << 10 // RFC 8446 §5.1
	recordHandshake = 22
	clientHello     = 1
)

// Records puts the ClientHello together that a TLS stream begins with (RFC 8446 §5.1).
// The zero value is ready for use.
type Records struct {
	at  int // where the next record begins
	msg []byte
}

// Next looks for the message in a stream, of which all bytes so far are given. It looks
// at each record once, and returns ErrMore until the message is complete. The message
// has its header. It may be a part of the stream.
func (r *Records) Next(stream []byte) (msg []byte, err error) {
	for {
		payload, err := r.record(stream)
		if err != nil {
			return nil, err
		}
		got := payload
		if len(r.msg) > 0 {
			r.msg = append(r.msg, payload...)
			got = r.msg
		}
		n, err := messageLen(got)
		switch {
		case err == nil && len(got) >= n:
			return got[:n], nil
		case err != nil && !errors.Is(err, ErrMore):
			return nil, err
		case len(r.msg) == 0:
			r.msg = append(make([]byte, 0, 2*len(got)), got...)
		}
	}
}

// record returns the payload of the next record, and moves on behind it.
func (r *Records) record(stream []byte) ([]byte, error) {
	b := stream[r.at:]
	if len(b) > 0 && b[0] != recordHandshake || len(b) > 1 && b[1] != 3 {
		if r.at == 0 {
			return nil, ErrNotTLS
		}
		return nil, ErrInvalid
	}
	if len(b) < recordHeader {
		return nil, r.more(stream)
	}
	n := int(binary.BigEndian.Uint16(b[3:]))
	if n == 0 || n > maxRecord {
		return nil, ErrInvalid
	}
	// The message of a record that is not complete may be known to be wrong already.
	if b := b[recordHeader:]; len(r.msg) == 0 && len(b) >= 4 {
		if _, err := messageLen(b); err != nil {
			return nil, err
		}
	}
	if len(b) < recordHeader+n {
		return nil, r.more(stream)
	}
	r.at += recordHeader + n
	return b[recordHeader : recordHeader+n], nil
}

func (r *Records) more(stream []byte) error {
	if len(stream) >= MaxStream {
		return ErrTooLong
	}
	return ErrMore
}

// messageLen returns the length of a message with its header.
func messageLen(b []byte) (int, error) {
	if b[0] != clientHello {
		return 0, ErrInvalid
	}
	if len(b) < 4 {
		return 0, ErrMore
	}
	n := 4 + int(b[1])<<16 + int(b[2])<<8 + int(b[3])
	if n > MaxMessage {
		return 0, ErrTooLong
	}
	return n, nil
}
