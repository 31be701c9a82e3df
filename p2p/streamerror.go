package p2p

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/quic-go/quic-go"
)

// failure makes the error of a net.Conn of an error of quic-go's.
func (s *StreamConn) failure(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var reset *quic.StreamError
	switch {
	case s.isClosed() || op == "write" && s.isWriteClosed():
		err = net.ErrClosed
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, errPreface):
	case errors.As(err, &reset):
		if reset.Remote {
			err = fmt.Errorf("%w: %w", resetErrors[op], err)
			if s.refused != nil && reset.ErrorCode == CodeStreamRefused {
				s.refused()
			}
		}
	default:
		err = s.conn.lost(err)
	}
	return s.operation(op, err)
}

// resetErrors are what a net.Conn returns when the peer has cancelled a direction.
var resetErrors = map[string]error{"read": syscall.ECONNRESET, "write": syscall.EPIPE}

func (s *StreamConn) operation(op string, err error) error {
	return &net.OpError{Op: op, Net: networkName, Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
}

// lost is the error of a net.Conn or listener when the connection has ended with err.
func (c *Conn) lost(err error) error {
	if c.endpoint.ctx.Err() != nil {
		return ErrClosed
	}
	err = c.explain(err)
	var application *quic.ApplicationError
	if errors.As(err, &application) && !application.Remote {
		return net.ErrClosed // CloseWithError was called
	}
	return &lostError{err}
}

// lostError is why a connection has ended that this side has not closed. quic-go's errors
// wrap net.ErrClosed even then, and some are a Timeout, but whoever uses a net.Conn takes
// these for its own doing.
type lostError struct{ err error }

func (e *lostError) Error() string { return "connection lost: " + e.err.Error() }

func (e *lostError) Is(target error) bool {
	return target == syscall.ECONNRESET || target != net.ErrClosed && errors.Is(e.err, target)
}

func (e *lostError) As(target any) bool { return errors.As(e.err, target) }
