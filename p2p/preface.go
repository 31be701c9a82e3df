package p2p

import (
	"errors"
	"io"
	"sync"
)

// A stream that DialContext opens begins with
//
//	Preface {
//	  Type (8) = 0x21,
//	  Length (8),
//	  Payload (..),
//	}
//
// so that the peer can accept the stream before the dialer writes, as protocols need in which
// the server speaks first: QUIC tells the peer of a stream only when something is on it. The
// payload is empty in this version, and a receiver skips it.
const prefaceType = 0x21

// errPreface: a stream does not begin so.
var errPreface = errors.New("the peer has not opened the stream by DialContext")

// preface reads the beginning of a stream. It may arrive in pieces, with calls between them
// that end with their deadlines.
type preface struct {
	mu   sync.Mutex // guards the following
	have []byte
	done bool
}

// read returns nil when r is behind the preface. It may be called again after an error.
func (o *preface) read(r io.Reader) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.done {
		buf := make([]byte, o.missing())
		n, err := r.Read(buf)
		o.have = append(o.have, buf[:n]...)
		if len(o.have) > 0 && o.have[0] != prefaceType {
			return errPreface
		}
		o.done = o.missing() == 0
		switch {
		case err == nil || o.done: // EOF comes again
		case errors.Is(err, io.EOF) && len(o.have) > 0:
			return io.ErrUnexpectedEOF
		default:
			return err
		}
	}
	return nil
}

// missing is how many bytes of the preface are still to be read, as far as is known.
func (o *preface) missing() int {
	n := 2
	if len(o.have) >= n {
		n += int(o.have[1])
	}
	return n - len(o.have)
}
