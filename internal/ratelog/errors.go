package ratelog

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// Errors counts errors of one kind, and logs the first of them. The zero value is ready for
// use. Its methods may be called concurrently.
type Errors struct{ n atomic.Uint64 }

// Add counts an error. It logs the first one, at a level.
func (e *Errors) Add(log *slog.Logger, level slog.Level, message string, err error) {
	if e.n.Add(1) == 1 {
		log.Log(context.Background(), level, message+"; further errors are only counted", "err", err)
	}
}

// Count returns the number of errors.
func (e *Errors) Count() uint64 { return e.n.Load() }
