// Package live prints a table at an interval.
package live

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

// Show calls print at an interval, until ctx is done. On a terminal it clears the screen
// before. If every is not positive it does nothing.
func Show(ctx context.Context, w io.Writer, every time.Duration, print func(io.Writer)) {
	if every <= 0 {
		return
	}
	clear := ""
	if isTerminal(w) {
		clear = "\x1b[H\x1b[2J"
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			fmt.Fprint(w, clear)
			print(w)
		}
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
