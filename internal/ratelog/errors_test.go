package ratelog

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// TestErrors checks that all errors are counted, and that only the first one is logged.
func TestErrors(t *testing.T) {
	var out strings.Builder
	var errs Errors
	for _, text := range []string{"first", "second", "third"} {
		errs.Add(slog.New(slog.NewTextHandler(&out, nil)), slog.LevelError, "it fails", errors.New(text))
	}
	if n := errs.Count(); n != 3 {
		t.Errorf("counted %d errors, want 3", n)
	}
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "err=first") || !strings.Contains(got, "only counted") {
		t.Errorf("logged %q, want the first error", got)
	}
}
