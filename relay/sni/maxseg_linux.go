package sni

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// setMaxSeg bounds the maximum segment size of a socket that has no connection yet. 0 leaves
// it to the system.
func setMaxSeg(conn syscall.RawConn, size int) error {
	if size <= 0 {
		return nil
	}
	var err error
	ctlErr := conn.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, min(size, maxMaxSeg))
	})
	if ctlErr != nil {
		return ctlErr
	}
	return err
}
