package live

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// TestShow checks how often a table is printed, and that the screen is cleared on a terminal
// only.
func TestShow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for every, want := range map[time.Duration]string{0: "", -1: "", time.Second: "table\ntable\ntable\n"} {
			ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
			var out bytes.Buffer
			Show(ctx, &out, every, func(w io.Writer) { fmt.Fprintln(w, "table") })
			cancel()
			if out.String() != want {
				t.Errorf("every %v: got %q, want %q", every, out.String(), want)
			}
		}
	})
}
