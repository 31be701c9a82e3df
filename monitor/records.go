package monitor

import (
	"bufio"
	"encoding/binary"
	"math/bits"
)

// records reads a file of records from a stream, without a copy.
type records struct {
	stream *bufio.Reader // with room for the longest record
	ready  []byte        // what stream has in its buffer and was not used yet
	swap   bool          // the file is big-endian
}

// uint16, uint32 and uint64 read a number at the beginning of b.
func (r *records) uint16(b []byte) uint16 {
	v := binary.LittleEndian.Uint16(b)
	if r.swap {
		v = bits.ReverseBytes16(v)
	}
	return v
}

func (r *records) uint32(b []byte) uint32 {
	v := binary.LittleEndian.Uint32(b)
	if r.swap {
		v = bits.ReverseBytes32(v)
	}
	return v
}

func (r *records) uint64(b []byte) uint64 {
	v := binary.LittleEndian.Uint64(b)
	if r.swap {
		v = bits.ReverseBytes64(v)
	}
	return v
}

// fill reads from the stream until n bytes are ready. If wait is false it returns errNotReady instead.
func (r *records) fill(n int, wait bool) error {
	switch {
	case len(r.ready) >= n:
		return nil
	case !wait:
		return errNotReady
	}
	if _, err := r.stream.Discard(r.stream.Buffered() - len(r.ready)); err != nil {
		return err
	}
	_, err := r.stream.Peek(n)
	r.ready, _ = r.stream.Peek(r.stream.Buffered()) // no copy, and no error
	return err
}

// skip skips n bytes. It invalidates what was ready before. If wait is false and they have to be read from the
// stream first, it leaves them and returns errNotReady instead.
func (r *records) skip(n int, wait bool) error {
	switch {
	case len(r.ready) >= n:
		r.ready = r.ready[n:]
		return nil
	case !wait:
		return errNotReady
	}
	_, err := r.stream.Discard(r.stream.Buffered() - len(r.ready) + n)
	r.ready, _ = r.stream.Peek(r.stream.Buffered())
	return err
}
