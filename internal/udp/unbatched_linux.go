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

// forbidden says whether a system call that was denied is not to be tried again. A firewall and
// ICMPv6 messages, which anybody may send, cause the same errors. A call without a socket gets them
// from a seccomp filter only.
func forbidden(call uintptr, errno unix.Errno) bool {
	if !denied(errno) {
		return false
	}
	_, _, errno = unix.Syscall6(call, ^uintptr(0), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	return denied(errno)
}

// receive reads as many messages as there are, at most len(hdrs), or one if recvmmsg does
// not work. It returns how many it has read.
func (e *kernelEngine) receive(fd uintptr, hdrs []mmsghdr) (int, unix.Errno) {
	if !e.unbatched.read {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&hdrs[0])), uintptr(len(hdrs)), unix.MSG_DONTWAIT, 0, 0)
		if !forbidden(unix.SYS_RECVMMSG, errno) {
			return int(n), errno
		}
		e.unbatched.read = true
	}
	n, _, errno := unix.Syscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&hdrs[0].hdr)), unix.MSG_DONTWAIT)
	hdrs[0].n = uint32(n)
	return 1, errno
}

// send sends messages until the kernel refuses one, or a single message if sendmmsg does not
// work. It returns how many it has sent.
func (e *kernelEngine) send(fd uintptr, hdrs []mmsghdr) (int, unix.Errno) {
	if !e.unbatched.write.Load() {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&hdrs[0])), uintptr(len(hdrs)), unix.MSG_DONTWAIT, 0, 0)
		if !forbidden(unix.SYS_SENDMMSG, errno) {
			return int(n), errno
		}
		e.unbatched.write.Store(true)
	}
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&hdrs[0].hdr)), unix.MSG_DONTWAIT)
	return 1, errno
}
