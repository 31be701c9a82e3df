package nettest

import (
	"fmt"
	"os/exec"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// RunWithCapabilities runs a command that root may give no other capabilities than
// these, and returns what it prints.
func RunWithCapabilities(cmd *exec.Cmd, capabilities ...uintptr) (out []byte, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread's bounding set is the command's. The thread ends with this
		// goroutine, because nobody unlocks it.
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
