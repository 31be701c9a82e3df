package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// timeline prints what happens, and when.
type timeline struct {
	mu     sync.Mutex // guards the following
	out    io.Writer
	start  time.Time
	missed int
}

func newTimeline(out io.Writer) *timeline { return &timeline{out: out, start: time.Now()} }

// begin starts the clock.
func (t *timeline) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.start = time.Now()
}

// step prints an event.
func (t *timeline) step(what, more string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, "%10.1f ms  %-13s %s\n", float64(time.Since(t.start).Microseconds())/1000, what, more)
}

// goal prints a figure and its limit.
func (t *timeline) goal(what string, got, most time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	note := ""
	if got > most {
		note = "  MISSED"
		t.missed++
	}
	fmt.Fprintf(t.out, "%-58s %8.1f ms  goal %8.1f ms%s\n", what, ms(got), ms(most), note)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
