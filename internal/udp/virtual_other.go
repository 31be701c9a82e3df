//go:build !linux

package udp

// wrapVirtual leaves the conn a plain one, as quic-go has no use for more here.
func wrapVirtual(v *virtual, _ *Socket) (Conn, error) { return v, nil }
