package datapath

import (
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// clock relates the program's clock, of which only differences mean anything, to
// own: what either showed when they were compared.
type clock struct{ program, own uint64 }

// compareClocks compares the clocks. They drift apart, but not by a tick in a minute.
func (p *Program) compareClocks() (c clock, err error) {
	frame := make([]byte, 14)
	c.own = coarse()
	if _, err := p.objects.ReadClock.Run(&ebpf.RunOptions{Data: frame}); err != nil {
		return c, fmt.Errorf("xdp: ask the program for the time: %w", explain(err))
	}
	if err := p.objects.Ticks.Get(&c.program); err != nil {
		return c, fmt.Errorf("xdp: ask the program for the time: %w", err)
	}
	return c, nil
}

// now is the time on the program's clock.
func (c clock) now() uint64 { return c.program + coarse() - c.own }

// ahead is how far our clock is ahead of the program's.
func (c clock) ahead() int64 { return int64(c.own - c.program) }

// coarse is a clock that goes as fast as the program's, and stands elsewhere.
func coarse() uint64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &t); err != nil {
		panic("xdp: no monotonic clock: " + err.Error()) // Linux always has one
	}
	return uint64(t.Nano())
}

// tick is how long a tick of the kernel is, in nanoseconds.
func tick() (uint64, error) {
	var t unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &t); err != nil {
		return 0, fmt.Errorf("ask for the kernel's tick: %w", err)
	}
	return uint64(t.Nano()), nil
}
