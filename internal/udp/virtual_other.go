//go:build !linux

package udp

// wrapVirtual leaves the conn a plain one, as quic-go has no use for more here.
func wrapVirtual(v *virtual, _ *Socket) (Conn, error) { return v, nil }

// IsTrain says whether control messages make a write one of several datagrams, which
// is for Linux.
func IsTrain([]byte) bool { return false }

// IsOffload says whether a write failed because the network device cannot do what
// trains need.
func IsOffload(error) bool { return false }
