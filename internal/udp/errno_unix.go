//go:build unix

package udp

import (
	"errors"

	"golang.org/x/sys/unix"
)

// IsMessageTooLong says whether a write failed because the packet exceeds the
// MTU of the path, as far as it is known.
func IsMessageTooLong(err error) bool { return errors.Is(err, unix.EMSGSIZE) }
