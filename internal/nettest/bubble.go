package nettest

import (
	"runtime"
	"testing"
	"testing/synctest"
)

// Bubble runs a test on the fake clock, as [synctest.Test] does, and on one CPU:
// all goroutines of a bubble share what the race detector knows about its timers,
// and two that find one due at the same time crash it (go.dev/issue/78156).
func Bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, test)
}
