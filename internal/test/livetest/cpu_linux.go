package livetest

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// OneCPU keeps all threads of this process on one CPU, until the end of the test.
func OneCPU(tb nettest.TB) {
	tb.Helper()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		tb.Fatal(err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if before.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	setAffinity(tb, &one)
	tb.Cleanup(func() { setAffinity(tb, &before) })
}

func setAffinity(tb nettest.TB, set *unix.CPUSet) {
	tb.Helper()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		tb.Fatal(err)
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			tb.Fatal(err)
		}
		_ = unix.SchedSetaffinity(tid, set) // the thread may have ended
	}
}

// CPUTime returns the CPU time of this process, of others, and of the kernel's threads for what
// interrupts leave over. What a process does in interrupts counts for it, so that this is all the
// work for the packets. Processes that take no part do not disturb it much.
func CPUTime(tb nettest.TB, pids ...int) time.Duration {
	tb.Helper()
	kernel, err := interruptThreads()
	if err != nil {
		tb.Fatal(err)
	}
	return ProcessTime(tb, slices.Concat(pids, kernel, []int{os.Getpid()})...)
}

// ProcessTime returns the CPU time of processes alone.
func ProcessTime(tb nettest.TB, pids ...int) (sum time.Duration) {
	tb.Helper()
	for _, pid := range pids {
		const allThreads = 2 // CPUCLOCK_SCHED of a process: see clock_getcpuclockid(3)
		var t unix.Timespec
		if err := unix.ClockGettime(int32(^pid<<3|allThreads), &t); err != nil {
			tb.Fatalf("CPU time of process %d: %v", pid, err)
		}
		sum += time.Duration(t.Nano())
	}
	return sum
}

// interruptThreads returns the threads of the kernel named ksoftirqd, which last.
var interruptThreads = sync.OnceValues(func() (all []int, err error) {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	for _, name := range names {
		comm, err := os.ReadFile(name)
		if err != nil || !bytes.HasPrefix(comm, []byte("ksoftirqd/")) {
			continue // it has ended, or is another one
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
			all = append(all, pid)
		}
	}
	return all, err
})
