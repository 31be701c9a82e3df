package nettest

import (
	"fmt"
	"os/exec"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// RunWithCapabilities runs a command whose capabilities are limited to these, even as
// root, and returns its output.
func RunWithCapabilities(cmd *exec.Cmd, capabilities ...uintptr) (out []byte, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The command inherits the bounding set of this thread. The thread ends
		// with this goroutine, since it is never unlocked.
		runtime.LockOSThread()
		for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
			if slices.Contains(capabilities, c) {
				continue
			}
			if err = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL {
				err = fmt.Errorf("drop capability %d: %w", c, err)
				return
			}
		}
		out, err = cmd.CombinedOutput()
	}()
	<-done
	return out, err
}
