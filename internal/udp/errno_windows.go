package udp

import (
	"errors"

	"golang.org/x/sys/windows"
)

// IsMessageTooLong says whether a write failed because the packet exceeds the
// MTU of the path, as far as it is known.
func IsMessageTooLong(err error) bool { return errors.Is(err, windows.WSAEMSGSIZE) }
