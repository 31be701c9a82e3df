// Package monotime holds times in one word, so that they fit into an atomic. They are those of
// the monotonic clock: setting the wall clock of the host changes no difference between them.
// [time.Time.UnixNano] is a time of the wall clock, and jumps when that is set.
package monotime

import "time"

// began is near the beginning of the process.
var began = time.Now()

// Now returns the current time: nanoseconds since a moment near the beginning of the process.
// It is never 0, which may stand for no time.
func Now() int64 { return nonzero(time.Since(began)) }

// Of returns a time that [time.Now] has returned, or that differs from such a time by a
// duration. It is never 0. For a time without a reading of the monotonic clock, such as one that
// was parsed, the wall clock decides.
func Of(t time.Time) int64 { return nonzero(t.Sub(began)) }

// Age returns how long before now a time of Now or Of was.
func Age(at int64, now time.Time) time.Duration { return now.Sub(began) - time.Duration(at) }

func nonzero(d time.Duration) int64 {
	if d == 0 {
		d = 1
	}
	return int64(d)
}
