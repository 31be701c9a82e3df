package quota

import (
	"errors"
	"fmt"
	"net/netip"
)

var (
	// ErrConfig is wrapped by the errors of [New] about a [Config] that cannot
	// work.
	ErrConfig = errors.New("invalid configuration")

	// ErrRefused is wrapped by the errors of [Controller.Admit] for whoever is
	// not admitted. See [RefusedError].
	ErrRefused = errors.New("refused")

	// ErrPrefix is wrapped by errors about prefixes that cannot be in a list.
	ErrPrefix = errors.New("invalid prefix")

	// ErrFull is returned when a list has no room for another entry
	// ([Config.MaxEntries]).
	ErrFull = errors.New("list is full")
)

// RefusedError says why somebody was not admitted. It is an [ErrRefused].
type RefusedError struct {
	// Source is who was refused.
	Source netip.Prefix
	// Reason is the limit that was reached, or the list.
	Reason Reason
}

func (e *RefusedError) Error() string { return fmt.Sprintf("%v refused: %v", e.Source, e.Reason) }

// Is makes errors.Is(err, ErrRefused) true.
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// LineError says which line of a list cannot be read, and why.
type LineError struct {
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns Err.
func (e *LineError) Unwrap() error { return e.Err }
