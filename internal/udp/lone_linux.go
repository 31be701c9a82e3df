package udp

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lone says which of the calls for many messages are not to be had, as under a
// seccomp filter that knows only older ones: then a call moves one message.
type lone struct {
	read  bool // of the one who reads
	write atomic.Bool
}

// denied says whether a call may have failed because there is no such call here, or
// it is forbidden.
func denied(errno unix.Errno) bool {
	return errno == unix.EPERM || errno == unix.ENOSYS || errno == unix.EACCES
}

// receive reads into as many messages as there are, or into one.
func (e *kernelEngine) receive(fd uintptr, hdrs []mmsghdr) (int, unix.Errno) {
	if !e.lone.read {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&hdrs[0])), uintptr(len(hdrs)), unix.MSG_DONTWAIT, 0, 0)
		if !denied(errno) {
			return int(n), errno
		}
	}
	n, _, errno := unix.Syscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&hdrs[0].hdr)), unix.MSG_DONTWAIT)
	e.lone.read = !denied(errno)
	hdrs[0].n = uint32(n)
	return 1, errno
}

// send sends messages until the kernel refuses one. EPERM is what a firewall says,
// too: that only many are forbidden shows when one goes through.
func (e *kernelEngine) send(fd uintptr, hdrs []mmsghdr) (int, unix.Errno) {
	if !e.lone.write.Load() {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&hdrs[0])), uintptr(len(hdrs)), unix.MSG_DONTWAIT, 0, 0)
		if !denied(errno) {
			return int(n), errno
		}
	}
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&hdrs[0].hdr)), unix.MSG_DONTWAIT)
	if errno == 0 {
		e.lone.write.Store(true)
	}
	return 1, errno
}
