package nettest

import "time"

// Eventually waits until a condition holds, for a minute at most: then it fails the test.
func Eventually(tb TB, what string, holds func() bool) {
	tb.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("not within a minute: %s", what)
		}
	}
}
