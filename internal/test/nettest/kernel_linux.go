package nettest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// KernelAtLeast says whether Linux is of this version or a newer one, for tests of
// what older ones lack.
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
