package udp

import (
	"errors"

	"golang.org/x/sys/windows"
)

// IsMessageTooLong says whether a write failed because the packet is larger than the MTU of
// the network interface or of the path.
func IsMessageTooLong(err error) bool { return errors.Is(err, windows.WSAEMSGSIZE) }
