package udp

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// unbatched says which of the system calls for several messages (recvmmsg, sendmmsg) do not
// work, because a seccomp filter forbids them. The calls for one message take their place.
type unbatched struct {
	read  bool // used only by the goroutine that reads
	write atomic.Bool
}

// denied says whether a system call may have failed because it does not exist or is
// forbidden.
func denied(errno unix.Errno) bool {
	return errno == unix.EPERM || errno == unix.ENOSYS || errno == unix.EACCES
}

// receive reads as many messages as there are, at most len(hdrs), or one if recvmmsg does
// not work. It returns how many it has read.
func (e *kernelEngine) receive(fd uintptr, hdrs []mmsghdr) (int, unix.Errno) {
	if !e.unbatched.read {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&hdrs[0])), uintptr(len(hdrs)), unix.MSG_DONTWAIT, 0, 0)
		if !denied(errno) {
			return int(n), errno
		}
	}
	n, _, errno := unix.Syscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&hdrs[0].hdr)), unix.MSG_DONTWAIT)
	e.unbatched.read = !denied(errno)
	hdrs[0].n = uint32(n)
	return 1, errno
}

// send sends messages until the kernel refuses one, or a single message if sendmmsg does not
// work. It returns how many it has sent. A firewall causes EPERM as well, so sendmmsg is only
// taken for forbidden when sendmsg of the same message succeeds.
func (e *kernelEngine) send(fd uintptr, hdrs []mmsghdr) (int, unix.Errno) {
	if !e.unbatched.write.Load() {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&hdrs[0])), uintptr(len(hdrs)), unix.MSG_DONTWAIT, 0, 0)
		if !denied(errno) {
			return int(n), errno
		}
	}
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&hdrs[0].hdr)), unix.MSG_DONTWAIT)
	if errno == 0 {
		e.unbatched.write.Store(true)
	}
	return 1, errno
}
