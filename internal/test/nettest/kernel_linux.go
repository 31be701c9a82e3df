package nettest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// KernelAtLeast reports whether the version of Linux is this one or a newer one.
func KernelAtLeast(tb TB, major, minor int) bool {
	tb.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		tb.Fatal(err)
	}
	var gotMajor, gotMinor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &gotMajor, &gotMinor); err != nil {
		tb.Fatal(err)
	}
	return gotMajor > major || (gotMajor == major && gotMinor >= minor)
}
