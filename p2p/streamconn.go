package p2p

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// Stream error codes with which this package itself cancels a stream (RFC 9000 §20.2). The
// application should use others.
const (
	// CodeStreamClosed: [StreamConn.Close] was called, and what the peer still writes is not
	// read.
	CodeStreamClosed quic.StreamErrorCode = 0x71776179_01
	// CodeStreamRefused: the stream was not opened by DialContext, or the listener is closed.
	CodeStreamRefused quic.StreamErrorCode = 0x71776179_02
)

// StreamConn is a [net.Conn] over one bidirectional stream of a [Conn]. Those that
// [Endpoint.DialContext], [Conn.DialContext] and the listeners return are StreamConns. All
// methods may be called concurrently.
//
// What is written is delivered as long as the connection lives: closing the Conn or the
// Endpoint discards what the peer has not acknowledged or not read yet, while Close and
// CloseWrite of a StreamConn do not. [Endpoint.DialContext] closes a connection a minute after
// its last StreamConn, also if the peer has not read all by then.
//
// Errors are a [*net.OpError]. They wrap [os.ErrDeadlineExceeded] after a deadline,
// [net.ErrClosed] after Close or Reset, and when this side has closed the Conn or the
// Endpoint, and [syscall.ECONNRESET] if the peer has reset the stream, or the connection has
// been lost: then they also wrap what [Conn.Err] returns, such as ErrPeerGone. A Write that
// the peer does not read any more wraps [syscall.EPIPE]. The code of a reset is in the
// [*quic.StreamError]. Read returns io.EOF itself.
type StreamConn struct {
	conn    *Conn
	stream  *quic.Stream
	preface *preface // of a stream that the peer has opened for a StreamConn, nil otherwise
	ended   func()   // called once, by Close or Reset
	refused func()   // called when the peer's listener has refused the stream; nil: nothing to do

	writing sync.Mutex // held while something is written, and by the FIN

	mu          sync.Mutex // guards the following, and the order of deadlines
	closed      bool
	writeClosed bool
}

var _ net.Conn = (*StreamConn)(nil)

// NetConn returns a stream of the connection as a [net.Conn]. The peer sees exactly what is
// written: it cannot accept the stream until something is, and it accepts the stream with
// AcceptStream. Only the StreamConn may be used from then on, and Close closes the stream in
// both directions. [Conn.DialContext] opens streams for the peer's [Conn.Listener].
func (c *Conn) NetConn(stream *quic.Stream) *StreamConn {
	return &StreamConn{conn: c, stream: stream, ended: func() {}}
}

// Conn returns the connection that the stream is part of. It is shared with other streams.
func (s *StreamConn) Conn() *Conn { return s.conn }

// LocalAddr returns a [PeerAddr] with the ID of this endpoint, and its address on the
// present path.
func (s *StreamConn) LocalAddr() net.Addr {
	p, _ := s.conn.paths.latest()
	return PeerAddr{ID: s.conn.endpoint.ID(), Kind: p.Kind, Via: p.Local}
}

// RemoteAddr returns a [PeerAddr], whose text is the ID of the peer, without a port.
func (s *StreamConn) RemoteAddr() net.Addr { return s.conn.RemoteAddr() }

// Read reads what the peer has written. It returns io.EOF when the peer has closed its
// StreamConn, or called CloseWrite.
func (s *StreamConn) Read(b []byte) (int, error) {
	if s.isClosed() {
		return 0, s.operation("read", net.ErrClosed)
	}
	if s.preface != nil {
		if err := s.readPreface(); err != nil {
			return 0, s.failure("read", err)
		}
	}
	n, err := s.stream.Read(b)
	return n, s.failure("read", err)
}

// readPreface reads what the peer's DialContext has written. It resets a stream that has been
// opened otherwise.
func (s *StreamConn) readPreface() error {
	err := s.preface.read(s.stream)
	if errors.Is(err, errPreface) {
		s.stream.CancelRead(CodeStreamRefused)
		s.stream.CancelWrite(CodeStreamRefused)
	}
	return err
}

// Write writes to the peer. It returns when the last bytes have been handed to QUIC, which
// delivers them. It waits while the peer does not read.
func (s *StreamConn) Write(b []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.isWriteClosed() {
		return 0, s.operation("write", net.ErrClosed)
	}
	n, err := s.stream.Write(b)
	return n, s.failure("write", err)
}

// CloseWrite sends a FIN after what has been written: the peer's Read then returns io.EOF.
// Reading goes on. A Write that waits ends with net.ErrClosed.
func (s *StreamConn) CloseWrite() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return s.operation("close", net.ErrClosed)
	}
	s.writeClosed = true
	s.mu.Unlock()
	s.finish()
	return nil
}

// Close closes both directions. It sends a FIN after what has been written, which is still
// delivered, and has the peer stop sending (STOP_SENDING with CodeStreamClosed, RFC 9000
// §3.5): the peer's Write then fails, and what has arrived is discarded. Calls of Read and
// Write that wait end with net.ErrClosed. Close does not wait for the peer.
func (s *StreamConn) Close() error {
	if !s.end() {
		return s.operation("close", net.ErrClosed)
	}
	s.stream.CancelRead(CodeStreamClosed)
	s.finish()
	s.ended()
	return nil
}

// Reset closes both directions at once with an error code. What has not been delivered yet is
// discarded, and the peer's Read fails instead of returning io.EOF. It does nothing after
// Close.
func (s *StreamConn) Reset(code quic.StreamErrorCode) {
	if !s.end() {
		return
	}
	s.stream.CancelRead(code)
	s.stream.CancelWrite(code)
	s.ended()
}

// end marks both directions as closed. It returns false if they are.
func (s *StreamConn) end() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.closed, s.writeClosed = true, true
	return true
}

// finish sends a FIN when a Write that waits has ended: quic-go allows no Write and Close at
// the same time.
func (s *StreamConn) finish() {
	_ = s.stream.SetWriteDeadline(longAgo)
	s.writing.Lock()
	defer s.writing.Unlock()
	_ = s.stream.Close() // fails only if one side has reset the stream: then there is no FIN
}

// longAgo is a deadline that ends a call that waits.
var longAgo = time.Unix(1, 0)

func (s *StreamConn) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *StreamConn) isWriteClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writeClosed
}

// SetDeadline sets the deadlines of Read and Write, also for calls that wait. The zero time
// means none.
func (s *StreamConn) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

// SetReadDeadline sets the deadline of Read. The StreamConn can be used after it has passed.
func (s *StreamConn) SetReadDeadline(t time.Time) error {
	if s.isClosed() {
		return s.operation("set", net.ErrClosed)
	}
	return s.stream.SetReadDeadline(t)
}

// SetWriteDeadline sets the deadline of Write. A Write that it ends returns how many bytes
// have been handed to QUIC. The StreamConn can be used after it has passed.
func (s *StreamConn) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return s.operation("set", net.ErrClosed)
	case s.writeClosed:
		return nil // finish has set the last one
	}
	return s.stream.SetWriteDeadline(t)
}
