package sockmap

import (
	"errors"
	"fmt"
	"net"
)

var (
	// ErrClosed is returned by methods of a closed [Program]. It wraps net.ErrClosed.
	ErrClosed = fmt.Errorf("program closed: %w", net.ErrClosed)
	// ErrUnsupported: the system has no sockmap, or one that has failed the self test.
	ErrUnsupported = errors.New("not supported")
	// ErrPermission: the process lacks CAP_BPF or CAP_NET_ADMIN.
	ErrPermission = errors.New("needs CAP_BPF and CAP_NET_ADMIN")
	// ErrFull: there are as many pairs as there is room for.
	ErrFull = errors.New("no room for another pair")
	// ErrNotQuiet: the sockets have bytes that arrive faster than they are copied.
	ErrNotQuiet = errors.New("bytes keep arriving")
	// ErrNotEstablished: an end has finished or reset its connection already.
	ErrNotEstablished = errors.New("the connection is not established")
)

// RefusedError says which row of the self test the kernel has failed. It is an
// [ErrUnsupported].
type RefusedError struct {
	Row string
	Err error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("this kernel has failed the test %q: %v", e.Row, e.Err)
}

func (e *RefusedError) Unwrap() []error { return []error{ErrUnsupported, e.Err} }

// End says how a [Pair] has ended.
type End uint8

const (
	// Running: the kernel relays the pair.
	Running End = iota
	// Finished: both ends have finished, and all their bytes were passed on.
	Finished
	// Reset: an end, [Pair.Abort] or [Program.Close] has reset the connections.
	Reset
)

// String returns the end in one word.
func (e End) String() string {
	switch e {
	case Running:
		return "running"
	case Finished:
		return "finished"
	case Reset:
		return "reset"
	}
	return fmt.Sprintf("end(%d)", uint8(e))
}

// Half is what has come from one end of a [Pair] since the takeover.
type Half struct {
	Bytes    uint64
	Finished bool // the end has sent all that it had to send, and it was passed on
}
