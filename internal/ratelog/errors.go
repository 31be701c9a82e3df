package ratelog

import (
	"log/slog"
	"sync/atomic"
)

// Errors counts errors of one kind, and logs the first of them. The zero value is ready for
// use. Its methods may be called concurrently.
type Errors struct{ n atomic.Uint64 }

// Add counts an error. It logs the first one as a warning.
func (e *Errors) Add(log *slog.Logger, message string, err error) {
	if e.n.Add(1) == 1 {
		log.Warn(message+"; further errors are only counted", "err", err)
	}
}

// Count returns the number of errors.
func (e *Errors) Count() uint64 { return e.n.Load() }
