package datapath

import (
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// clock relates the program's clock, whose zero is arbitrary, to the monotonic clock: the values of
// both when they were compared, in nanoseconds.
type clock struct{ program, monotonic uint64 }

// compareClocks reads both clocks. They drift apart by less than a tick in a minute.
func (p *Program) compareClocks() (c clock, err error) {
	frame := make([]byte, 14)
	c.monotonic = coarse()
	if _, err := p.objects.ReadClock.Run(&ebpf.RunOptions{Data: frame}); err != nil {
		return c, fmt.Errorf("xdp: read the program's clock: %w", explain(err))
	}
	if err := p.objects.Ticks.Get(&c.program); err != nil {
		return c, fmt.Errorf("xdp: read the program's clock: %w", err)
	}
	return c, nil
}

// now returns the time of the program's clock.
func (c clock) now() uint64 { return c.program + coarse() - c.monotonic }

// ahead returns how far the monotonic clock is ahead of the program's.
func (c clock) ahead() int64 { return int64(c.monotonic - c.program) }

// coarse returns the monotonic clock at the resolution of a tick, in nanoseconds.
func coarse() uint64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &t); err != nil {
		panic("xdp: no monotonic clock: " + err.Error()) // Linux always has one
	}
	return uint64(t.Nano())
}

// tick returns the length of a tick of the kernel, in nanoseconds.
func tick() (uint64, error) {
	var t unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &t); err != nil {
		return 0, fmt.Errorf("read the kernel's tick: %w", err)
	}
	return uint64(t.Nano()), nil
}
