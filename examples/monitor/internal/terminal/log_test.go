package terminal

import (
	"fmt"
	"strings"
	"testing"
)

// TestLog checks that lines are held back while a view is shown, within bounds.
func TestLog(t *testing.T) {
	var out strings.Builder
	l := Log{out: &out}
	fmt.Fprintln(&l, "before")
	l.hold()
	for i := range maxHeld + 1 {
		fmt.Fprintf(&l, "line %d\x1b\n", i)
	}
	if got := out.String(); got != "before\n" {
		t.Errorf("got %q while the view is shown", got)
	}
	if got, want := l.latest(), fmt.Sprintf(`line %d\x1b`, maxHeld); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	l.release()
	fmt.Fprintln(&l, "after")
	if got := out.String(); strings.Count(got, "\n") != maxHeld+2 || strings.Contains(got, "line 0\x1b") || !strings.HasSuffix(got, "\nafter\n") {
		t.Errorf("got %q", got)
	}
	if got := l.latest(); got != "" {
		t.Errorf("got %q after the view", got)
	}
}
