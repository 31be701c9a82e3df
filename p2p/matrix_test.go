package p2p

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestTimeToDirect measures, on the fake clock, how soon a pair of sites has a direct
// path, with 20 ms of round-trip time to the relay and between the hosts. With -v it
// prints the figures of README.md in the format of benchmarks. It fails if a pair takes
// longer than three round trips through the relay and 50 ms, or has no direct path
// although it must.
func TestTimeToDirect(t *testing.T) {
	const seeds = 3
	for _, a := range natKinds {
		for _, b := range natKinds {
			var times []time.Duration
			for seed := range uint64(seeds) {
				runLabSeeded(t, seed, func(l *lab) {
					left, right := a.site(l, 0).peer(nil), b.site(l, 1).peer(nil)
					if c, d := l.connect(left, right); punchable(a.name, b.name) {
						l.until(Direct, c, d)
						times = append(times, c.Stats().TimeToDirect)
					}
				})
			}
			name := strings.ReplaceAll("TimeToDirect/"+a.name+"/"+b.name, " ", "_")
			if len(times) == 0 {
				record(t, name, 0)
				continue
			}
			median := slices.Sorted(slices.Values(times))[len(times)/2]
			record(t, name, median)
			if most := 3*40*time.Millisecond + 50*time.Millisecond; median > most {
				t.Errorf("%s: direct after %v, want at most %v", name, median, most)
			}
		}
	}
}

// record prints a figure.
func record(t *testing.T, name string, d time.Duration) {
	if testing.Verbose() {
		fmt.Fprintf(t.Output(), "Benchmark%s 1 %.1f ms/op\n", name, float64(d.Microseconds())/1000)
	}
}
