package tunnel

import (
	"errors"
	"fmt"
	"io"

	"github.com/quic-go/quic-go/quicvarint"

	"github.com/quicway/quicway/internal/udp"
)

const (
	// typeDatagram is the type of the DATAGRAM capsule (RFC 9297 §3.5).
	typeDatagram = 0
	// contextUDP is the context ID of UDP payloads (RFC 9298 §4).
	contextUDP = 0
	// maxHeader is the length of the longest header that AppendDatagram writes.
	maxHeader = 1 + 4 + 1
	// maxVarint is the length of the longest varint.
	maxVarint = 8
	// largestUDP is the largest UDP payload that a capsule may have (RFC 9298 §5).
	largestUDP = 65527
	// MaxDatagram is the largest datagram that a Reader returns. It drops larger ones, as
	// a path does with a small MTU.
	MaxDatagram = 9 << 10
	// maxTrain is the largest number of datagrams in a train, as for UDP_GRO.
	maxTrain = 64
	// bufferSize has room for a TLS record and the beginning of the next datagram.
	bufferSize = 16<<10 + MaxDatagram + 3*maxVarint
)

// ErrCapsule is wrapped by the error about a malformed capsule, which ends the tunnel
// (RFC 9297 §3.3).
var ErrCapsule = errors.New("malformed capsule")

// AppendDatagram appends a datagram as a capsule.
func AppendDatagram(b, datagram []byte) []byte {
	b = append(b, typeDatagram)
	b = quicvarint.Append(b, uint64(1+len(datagram)))
	b = append(b, contextUDP)
	return append(b, datagram...)
}

// Reader reads datagrams from a stream of capsules. It skips capsules of other types
// (RFC 9297 §3.2), datagrams of other contexts, and empty and too large datagrams. Its memory
// does not depend on what it reads. It may be used by one goroutine.
type Reader struct {
	from       io.Reader
	buf        []byte
	start, end int    // what is in buf and has not been parsed yet
	skip       uint64 // bytes of the present capsule to skip
	err        error  // of from
}

// NewReader makes a Reader.
func NewReader(from io.Reader) *Reader {
	return &Reader{from: from, buf: make([]byte, bufferSize)}
}

// Read waits for a datagram, and returns in out those that have come, in at most len(out) messages.
// Datagrams of one size are a train, like those that a socket receives. It sets Data and
// SegmentSize, and Data is valid until the next call. After an error, which wraps ErrCapsule or
// comes from the stream, the tunnel is of no use.
func (r *Reader) Read(out []udp.Message) (int, error) {
	for {
		n, err := r.parse(out)
		if n > 0 || err != nil {
			return n, err
		}
		if r.err != nil {
			return 0, r.err
		}
		r.fill()
	}
}

// fill reads more from the stream.
func (r *Reader) fill() {
	copy(r.buf, r.buf[r.start:r.end])
	r.start, r.end = 0, r.end-r.start
	var n int
	n, r.err = r.from.Read(r.buf[r.end:])
	r.end += n
}

// parse parses the capsules in the buffer. It returns an error only if it has found no datagram
// before it.
func (r *Reader) parse(out []udp.Message) (n int, err error) {
	for {
		if r.skip > 0 {
			skipped := min(r.skip, uint64(r.end-r.start))
			r.start += int(skipped)
			r.skip -= skipped
		}
		datagram, size, err := parseCapsule(r.buf[r.start:r.end])
		switch {
		case err != nil && n > 0:
			return n, nil
		case err != nil:
			return 0, err
		case size == 0:
			return n, nil
		case size > uint64(r.end-r.start):
			r.skip = size
		default:
			if len(datagram) > 0 && (n == 0 || !extend(&out[n-1], datagram)) {
				if n == len(out) {
					return n, nil
				}
				out[n] = udp.Message{Data: datagram, SegmentSize: len(datagram)}
				n++
			}
			r.start += int(size)
		}
	}
}

// extend appends a datagram to a train in the same buffer, if its size fits: only the last one may
// be smaller. It moves the datagram to the end of the train, over what has been parsed already.
func extend(train *udp.Message, datagram []byte) bool {
	whole := len(train.Data)%train.SegmentSize == 0
	if !whole || len(datagram) > train.SegmentSize || len(train.Data) >= maxTrain*train.SegmentSize {
		return false
	}
	train.Data = append(train.Data, datagram...)
	return true
}

// parseCapsule parses the capsule at the beginning of b, and returns its size. Datagram is its
// content, or nil if it is to be skipped. A size of 0 means that b has only a part of a capsule
// that is needed. A larger size than b's means that the capsule is to be skipped, but is not
// there as a whole.
func parseCapsule(b []byte) (datagram []byte, size uint64, err error) {
	kind, n, ok := cutVarint(b)
	if !ok {
		return nil, 0, nil
	}
	length, m, ok := cutVarint(b[n:])
	if !ok {
		return nil, 0, nil
	}
	size = uint64(n+m) + length
	if kind != typeDatagram {
		return nil, size, nil
	}
	switch {
	case length == 0:
		return nil, 0, fmt.Errorf("%w: a datagram without a context ID", ErrCapsule)
	case length > largestUDP+maxVarint:
		return nil, 0, fmt.Errorf("%w: a datagram of %d bytes", ErrCapsule, length)
	case length > MaxDatagram+maxVarint:
		return nil, size, nil
	case size > uint64(len(b)):
		return nil, 0, nil
	}
	content := b[n+m : size]
	context, n, ok := cutVarint(content)
	switch {
	case !ok:
		return nil, 0, fmt.Errorf("%w: a datagram with a part of a context ID", ErrCapsule)
	case context != contextUDP || len(content)-n > MaxDatagram:
		return nil, size, nil
	}
	return content[n:], size, nil
}

// cutVarint returns the varint (RFC 9000 §16) at the beginning of b, and its length. It returns
// false if b has only a part of one.
func cutVarint(b []byte) (v uint64, n int, ok bool) {
	if len(b) == 0 || len(b) < 1<<(b[0]>>6) {
		return 0, 0, false
	}
	v, n, err := quicvarint.Parse(b)
	return v, n, err == nil
}
