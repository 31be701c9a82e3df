//go:build !linux

package udp

import "net"

// newKernelEngine has no batches to offer on this system.
func newKernelEngine(s *Socket, _ *net.UDPConn, _ *Config) (engine, error) {
	return newPlainEngine(s), nil
}

func forceBuffers(*net.UDPConn, int, int) {}
