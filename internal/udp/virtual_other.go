//go:build !linux

package udp

// wrapVirtual returns v, because quic-go uses out-of-band data only on Linux.
func wrapVirtual(v *virtual, _ *Socket) Conn { return v }

// IsTrain returns false: there are trains only on Linux.
func IsTrain([]byte) bool { return false }

// IsOffload returns false: there are trains only on Linux.
func IsOffload(error) bool { return false }
