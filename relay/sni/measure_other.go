//go:build !linux

package sni

import (
	"net"
	"time"
)

// measure returns nothing: there is no kernel path on this system.
func measure(_, _ *net.TCPConn) (sum sample, rtts [2]time.Duration) { return sum, rtts }
