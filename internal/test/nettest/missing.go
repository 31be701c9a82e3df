package nettest

import "os"

// TB is what a [Host] needs of a testing.TB, so that programs may have hosts, too.
type TB interface {
	Helper()
	Cleanup(func())
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Skip(args ...any)
}

// RequireKernel is the environment variable that makes a test fail which cannot
// run for what the machine, or the user, lacks.
const RequireKernel = "QUICWAY_REQUIRE_KERNEL"

// Missing skips a test for what is missing, or fails it if nothing may be.
func Missing(tb TB, what string) {
	tb.Helper()
	if os.Getenv(RequireKernel) == "1" {
		tb.Fatalf("%s=1, but %s", RequireKernel, what)
	}
	tb.Skip(what)
}
