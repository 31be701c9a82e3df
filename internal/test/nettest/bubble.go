package nettest

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// Bubble runs a test on the fake clock, as [synctest.Test] does, and on one CPU:
// all goroutines of a bubble share what the race detector knows about its timers,
// and two that find one due at the same time crash it (go.dev/issue/78156).
//
// The clock begins in 2000, which is before the process has: quic-go counts time
// from there, takes zero for a time that has passed, and would wait for it for
// ever. So the test begins later.
func Bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	now := time.Now()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(now.Add(time.Hour).Truncate(time.Hour)))
		test(t)
	})
}
