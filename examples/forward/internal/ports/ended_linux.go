package ports

import (
	"net"

	"golang.org/x/sys/unix"
)

// isClosed says whether a socket is closed in both directions. A socket that has sent no FIN was
// reset then.
func isClosed(tcp *net.TCPConn) bool {
	const tcpClose = 7 // TCP_CLOSE
	raw, err := tcp.SyscallConn()
	if err != nil {
		return true
	}
	var info *unix.TCPInfo
	ctlErr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	return ctlErr != nil || err == nil && info.State == tcpClose
}
