package nettest

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// RequireModules is the environment variable that, if it is 1, makes tests fail instead
// of being skipped when the kernel lacks a module.
const RequireModules = "QUICWAY_REQUIRE_MODULES"

// Modular skips a test if err says that the kernel lacks a module, unless
// [RequireModules] is set. For any other error the test fails.
func Modular(tb TB, what string, err error) {
	tb.Helper()
	if err == nil {
		return
	}
	missing := errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT)
	if missing && os.Getenv(RequireModules) != "1" {
		tb.Skip("this kernel has no " + what + "; make test-vm-all runs the test on one that has")
	}
	tb.Fatalf("%s: %v", what, err)
}
