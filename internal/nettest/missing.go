package nettest

import (
	"os"
	"testing"
)

// RequireKernel is the environment variable that makes a test fail which cannot
// run for what the machine, or the user, lacks.
const RequireKernel = "QUICWAY_REQUIRE_KERNEL"

// Missing skips a test for what is missing, or fails it if nothing may be.
func Missing(tb testing.TB, what string) {
	tb.Helper()
	if os.Getenv(RequireKernel) == "1" {
		tb.Fatalf("%s=1, but %s", RequireKernel, what)
	}
	tb.Skip(what)
}
