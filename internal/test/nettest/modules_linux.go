package nettest

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// RequireModules is the environment variable that makes a test fail for which the
// kernel lacks a module.
const RequireModules = "QUICWAY_REQUIRE_MODULES"

// Modular skips a test if an error says that the kernel has no module for it, unless
// [RequireModules] says that this kernel has all of them. It fails for other errors.
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
