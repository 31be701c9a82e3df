package udp

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// CanShard says whether [Listen] supports more than one shard.
const CanShard = true

// reusePort lets several sockets have the same port. The kernel delivers all packets of a flow
// to the same socket.
func reusePort(_, _ string, raw syscall.RawConn) error {
	var err error
	if ctlErr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}); ctlErr != nil {
		return ctlErr
	}
	if err != nil {
		return fmt.Errorf("set SO_REUSEPORT: %w", err)
	}
	return nil
}
