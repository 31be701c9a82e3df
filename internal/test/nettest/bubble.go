package nettest

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// Bubble runs a test on the fake clock of [synctest.Test], and on one CPU: the race
// detector crashes if two goroutines of a bubble find a timer due at the same time
// (go.dev/issue/78156).
//
// The fake clock starts in the year 2000, before the process was started. quic-go
// counts time from the start of the process, and a time before it would make it wait
// for ever. So Bubble sleeps until a later time first.
func Bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	now := time.Now()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(now.Add(time.Hour).Truncate(time.Hour)))
		test(t)
	})
}
