package quota

import (
	"errors"
	"fmt"
	"net/netip"
)

var (
	// ErrConfig is wrapped by the errors of [New] about an invalid [Config].
	ErrConfig = errors.New("invalid configuration")

	// ErrRefused is wrapped by the errors of [Controller.Admit]. See [RefusedError].
	ErrRefused = errors.New("refused")

	// ErrPrefix is wrapped by errors about prefixes that cannot be on a list.
	ErrPrefix = errors.New("invalid prefix")

	// ErrFull is wrapped by the error about an entry that a list has no room for
	// ([Config].MaxEntries).
	ErrFull = errors.New("list is full")
)

// RefusedError says why a connection was not admitted. It is an [ErrRefused].
type RefusedError struct {
	// Source is the source that was refused.
	Source netip.Prefix
	// Reason is the limit that was reached, or [Denied].
	Reason Reason
}

func (e *RefusedError) Error() string { return fmt.Sprintf("%v refused: %v", e.Source, e.Reason) }

// Is makes errors.Is(err, ErrRefused) true.
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// LineError says which line of a list file is invalid, and why.
type LineError struct {
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns Err.
func (e *LineError) Unwrap() error { return e.Err }
