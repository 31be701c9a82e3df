//go:build !unix && !windows

package udp

// IsMessageTooLong says whether a write failed because the packet exceeds the
// MTU of the path, which this system does not tell.
func IsMessageTooLong(error) bool { return false }
