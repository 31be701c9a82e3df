package nettest

import (
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// OnOneCPU calls f on one thread that stays on one CPU, so that datagrams which f sends arrive in
// order. The loopback interface, and a veth whose peer does not put packets together (GRO), queue
// each packet on the CPU that sends it, and a busy CPU may work off its queue later than others. So
// datagrams overtake each other, also those of one socket, if their sender moves to another CPU.
func OnOneCPU(tb TB, f func()) {
	tb.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		tb.Fatal(err)
	}
	if err := stayOn(&before, 0); err != nil {
		tb.Fatal(err)
	}
	defer func() {
		if err := unix.SchedSetaffinity(0, &before); err != nil {
			tb.Fatal(err)
		}
	}()
	f()
}

// stayOn keeps this thread on CPU number n of a set, modulo the size of the set.
func stayOn(all *unix.CPUSet, n int) error {
	n %= all.Count()
	for cpu := 0; ; cpu++ {
		if !all.IsSet(cpu) {
			continue
		}
		if n == 0 {
			var one unix.CPUSet
			one.Set(cpu)
			return unix.SchedSetaffinity(0, &one)
		}
		n--
	}
}

// settled is how many goroutines have settled.
var settled atomic.Uint32

// settle keeps this goroutine on one CPU until it ends: on another one than the last goroutine
// that has settled, if there are several.
func settle() error {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	return stayOn(&all, int(settled.Add(1)))
}
