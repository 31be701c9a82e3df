package tcptest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// maxChunk is the largest number of bytes that is written or read at once.
const maxChunk = 64 << 10

// stream is a sequence of random bytes, which its seed determines.
type stream struct {
	source *rand.ChaCha8
	sizes  *rand.Rand // of chunks, and pauses; they do not determine the bytes
	pause  time.Duration
	buf    []byte
}

func newStream(seed uint64, direction byte, pause time.Duration) *stream {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	key[31] = direction
	return &stream{
		source: rand.NewChaCha8(key),
		sizes:  rand.New(rand.NewPCG(seed, uint64(direction))),
		pause:  pause,
		buf:    make([]byte, maxChunk),
	}
}

// chunk returns a number of bytes in [1, limit]. Most chunks are large, and some are tiny.
func (s *stream) chunk(limit int64) int {
	n := int64(1) << s.sizes.IntN(17)
	return int(min(limit, 1+s.sizes.Int64N(n)))
}

// rest pauses sometimes.
func (s *stream) rest() {
	if s.pause > 0 && s.sizes.IntN(4) == 0 {
		time.Sleep(time.Duration(s.sizes.Int64N(int64(s.pause))))
	}
}

// write writes the next n bytes of the stream.
func (s *stream) write(w io.Writer, n int64) error {
	for sent := int64(0); sent < n; {
		chunk := s.buf[:s.chunk(n-sent)]
		_, _ = s.source.Read(chunk) // never fails
		k, err := w.Write(chunk)
		sent += int64(k)
		if err != nil {
			return fmt.Errorf("write after %d of %d bytes: %w", sent, n, err)
		}
		s.rest()
	}
	return nil
}

// errWrongByte is an error of a byte that is not the one that was sent.
var errWrongByte = errors.New("wrong byte")

// check reads the next n bytes of the stream and compares them.
func (s *stream) check(r io.Reader, n int64) error {
	want := make([]byte, maxChunk)
	for got := int64(0); got < n; {
		k, err := r.Read(s.buf[:s.chunk(n-got)])
		_, _ = s.source.Read(want[:k])
		if !bytes.Equal(s.buf[:k], want[:k]) {
			at := 0
			for s.buf[at] == want[at] {
				at++
			}
			return fmt.Errorf("read: %w at %d of %d", errWrongByte, got+int64(at), n)
		}
		got += int64(k)
		if err != nil && got < n {
			return fmt.Errorf("read after %d of %d bytes: %w", got, n, err)
		}
		s.rest()
	}
	return nil
}

// checkEnd checks that nothing but the end follows.
func checkEnd(r io.Reader) error {
	switch n, err := r.Read(make([]byte, 1)); {
	case n > 0:
		return errors.New("read: more bytes than were sent")
	case err != io.EOF:
		return fmt.Errorf("read at the end: %w", err)
	}
	return nil
}
