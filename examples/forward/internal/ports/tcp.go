package ports

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"
)

// aborted is the code with which a direction of a stream ends when its TCP connection was reset
// (RFC 9000 §2.4).
const aborted quic.StreamErrorCode = 1

// joint is a TCP connection and its stream. A FIN of one is a FIN of the other, and leaves the
// other direction open. A reset of one resets the other.
type joint struct {
	tcp      *net.TCPConn
	stream   *quic.Stream
	answered chan struct{} // closed when the answer has been read, or none is expected
	err      error         // of the answer
	finished atomic.Bool   // a FIN was sent to the TCP connection
	broken   sync.Once
}

// join relays between a TCP connection and its stream until both directions have ended, and
// closes both. With answer the stream begins with the peer's answer, whose error it returns.
func join(ctx context.Context, tcp *net.TCPConn, stream *quic.Stream, answer bool) error {
	j := &joint{tcp: tcp, stream: stream, answered: make(chan struct{})}
	if !answer {
		close(j.answered)
	}
	defer context.AfterFunc(ctx, j.reset)()
	var sending sync.WaitGroup
	sending.Go(j.send)
	j.receive(answer)
	sending.Wait()
	_ = tcp.Close()
	return j.err
}

// send relays from the TCP connection to the stream. A reset is an error of one call only: if
// receive's Write has got it, the TCP connection seems to end.
func (j *joint) send() {
	if copyAll(j.stream, j.tcp) != nil || !j.finished.Load() && isClosed(j.tcp) {
		<-j.answered // it says why
		j.reset()
		return
	}
	_ = j.stream.Close()
}

// receive relays from the stream to the TCP connection.
func (j *joint) receive(answer bool) {
	if answer {
		_, j.err = awaitAnswer(j.stream)
		close(j.answered)
	}
	if j.err != nil || copyAll(j.tcp, j.stream) != nil {
		j.reset()
		return
	}
	j.finished.Store(true)
	if j.tcp.CloseWrite() != nil {
		j.reset()
	}
}

// reset ends both at once, in both directions.
func (j *joint) reset() {
	j.broken.Do(func() {
		_ = j.tcp.SetLinger(0) // Close sends a reset
		_ = j.tcp.Close()
		abort(j.stream)
	})
}

// abort ends both directions of a stream. It does nothing to one that has ended.
func abort(stream *quic.Stream) {
	stream.CancelRead(aborted)
	stream.CancelWrite(aborted)
}

// copySize is the length of a buffer in bytes.
const copySize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([copySize]byte) }}

// copyAll copies until the reader's end.
func copyAll(w io.Writer, r io.Reader) error {
	b := buffers.Get().(*[copySize]byte)
	defer buffers.Put(b)
	for {
		n, err := r.Read(b[:])
		if n > 0 {
			if _, err := w.Write(b[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// forwardTCP forwards a TCP connection that was accepted here to a target that the peer connects
// to. It closes the connection.
func (s *Session) forwardTCP(ctx context.Context, tcp *net.TCPConn, target string) error {
	stream, err := s.open(ctx, &request{Spec{Network: "tcp", Target: target}})
	if err != nil {
		_ = tcp.SetLinger(0)
		return errors.Join(err, tcp.Close())
	}
	// What the client sends does not wait for the answer.
	return join(s.context(), tcp, stream, true)
}

// serveTCP connects to the target of the peer's request.
func (s *Session) serveTCP(stream *quic.Stream, target string) {
	c, err := dial(s.context(), "tcp", target)
	if err != nil {
		s.refuse(stream, err)
		return
	}
	tcp := c.(*net.TCPConn) // of network tcp
	if err := writeAnswer(stream, tcp.LocalAddr(), nil); err != nil {
		_ = tcp.Close()
		abort(stream)
		return
	}
	_ = join(s.context(), tcp, stream, false)
}
