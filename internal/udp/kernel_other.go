//go:build !linux

package udp

import "net"

// newKernelEngine returns an engine without batches, because this system has none.
func newKernelEngine(s *Socket, _ *net.UDPConn, _ *Config) (engine, error) {
	return newPlainEngine(s), nil
}

func forceBuffers(*net.UDPConn, int, int) {}
