package nettest

import "os"

// TB is the part of testing.TB that a [Host] uses. Programs that are not tests implement
// it to have hosts.
type TB interface {
	Helper()
	Cleanup(func())
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Skip(args ...any)
}

// RequireKernel is the environment variable that, if it is 1, makes tests fail instead of
// being skipped when the machine or the user lacks what they need.
const RequireKernel = "QUICWAY_REQUIRE_KERNEL"

// Missing skips a test because something is missing. With [RequireKernel] the test fails.
func Missing(tb TB, what string) {
	tb.Helper()
	if os.Getenv(RequireKernel) == "1" {
		tb.Fatalf("%s=1, but %s", RequireKernel, what)
	}
	tb.Skip(what)
}
