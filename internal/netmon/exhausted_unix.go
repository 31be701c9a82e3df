//go:build unix

package netmon

import (
	"errors"
	"syscall"
)

// exhausted says whether err is about the process (file descriptors, permissions) and not
// about the network.
func exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM)
}
