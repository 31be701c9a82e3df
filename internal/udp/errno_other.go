//go:build !unix && !windows

package udp

// IsMessageTooLong returns false, because this system does not report that a packet is too
// large.
func IsMessageTooLong(error) bool { return false }
