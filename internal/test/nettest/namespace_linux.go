package nettest

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace moves the test's goroutine into a network namespace of its own, until the end
// of the test. Other goroutines stay where they are.
func Namespace(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		Missing(tb, "making a network namespace needs root")
	}
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		tb.Fatal(err)
	}
	inside, err := netns.New()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := errors.Join(netns.Set(before), before.Close(), inside.Close()); err != nil {
			tb.Error(err) // the thread stays locked, and ends with its goroutine
			return
		}
		runtime.UnlockOSThread()
	})
}

// Sysctl sets a variable of /proc/sys in the goroutine's namespace.
func Sysctl(tb testing.TB, name, value string) {
	tb.Helper()
	if err := writeSysctl(name, value); err != nil {
		tb.Fatal(err)
	}
}

func writeSysctl(name, value string) error {
	// The namespace of this thread, which may differ from that of the process.
	return os.WriteFile("/proc/thread-self/root/proc/sys/"+name, []byte(value), 0o644)
}

// BPFFS mounts a BPF file system for the test, and returns its directory.
func BPFFS(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		Missing(tb, "mounting a BPF file system failed: "+err.Error())
	}
	tb.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			tb.Error(err)
		}
	})
	return dir
}
