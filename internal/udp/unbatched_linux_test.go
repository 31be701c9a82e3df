package udp

import (
	"bytes"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// forbid makes system calls of this thread fail, as a sandbox does. The thread ends with
// its goroutine.
func forbid(errno unix.Errno, calls ...uint32) error {
	runtime.LockOSThread()
	load := unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}
	program := []unix.SockFilter{load}
	for _, call := range calls {
		program = append(program,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)})
	}
	program = append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if _, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&filter))); errno != 0 {
		return errno
	}
	return nil
}

// sandboxed runs a test on a thread that may not make some system calls.
func sandboxed(t *testing.T, errno unix.Errno, calls []uint32, test func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		err := forbid(errno, calls...)
		if err == nil {
			test()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		nettest.Missing(t, "no seccomp: "+err.Error())
	}
}

// TestBatchesForbidden checks that messages are read and written one by one, with all their
// properties, if the system calls for several messages are forbidden.
func TestBatchesForbidden(t *testing.T) {
	for name, errno := range map[string]unix.Errno{"forbidden": unix.EPERM, "unknown": unix.ENOSYS} {
		t.Run(name, func(t *testing.T) {
			for _, network := range []string{"127.0.0.1:0", "[::1]:0"} {
				a, b := listen(t, "udp", network, nil), listen(t, "udp", network, nil)
				sandboxed(t, errno, []uint32{unix.SYS_RECVMMSG, unix.SYS_SENDMMSG}, func() { exchange(t, a, b) })
				if !a.engine.(*kernelEngine).unbatched.write.Load() || !b.engine.(*kernelEngine).unbatched.read {
					t.Error("the system calls for several messages are still tried")
				}
			}
		})
	}
}

// exchange sends several messages, one of which is a train, and checks that they arrive.
func exchange(t *testing.T, a, b *Socket) {
	to := b.LocalAddr()
	train := bytes.Repeat([]byte("train"), 100)
	err := a.WriteBatch([]Message{
		{Data: []byte("one"), Remote: to, ECN: 1},
		{Data: train, SegmentSize: 100, Remote: to, ECN: 2},
		{Data: []byte("three"), Remote: to, ECN: 1},
	})
	if err != nil {
		t.Error(err)
	}
	_ = b.SetReadDeadline(time.Now().Add(10 * time.Second))
	ms, got := make([]Message, 8), []byte(nil)
	for want := 3 + len(train) + 5; len(got) < want; {
		n, err := b.ReadBatch(ms)
		if err != nil {
			t.Errorf("%d of %d bytes: %v", len(got), want, err)
			return
		}
		for _, m := range ms[:n] {
			if m.ECN == 0 || m.Remote != a.LocalAddr() || m.Local != netip.Addr(b.LocalAddr().Addr()) {
				t.Errorf("got %+v", m)
			}
			got = append(got, m.Data...)
		}
	}
	if s := b.Stats(); s.RxErrors != 0 {
		t.Errorf("%d reads have failed", s.RxErrors)
	}
}

// TestReadingForbidden checks that reads return an error if no system call for reading is
// allowed.
func TestReadingForbidden(t *testing.T) {
	s := listen(t, "udp", "127.0.0.1:0", nil)
	sandboxed(t, unix.EPERM, []uint32{unix.SYS_RECVMMSG, unix.SYS_RECVMSG}, func() {
		if _, err := s.ReadBatch(make([]Message, 8)); !os.IsPermission(err) {
			t.Errorf("got %v, want a permission error", err)
		}
	})
}
