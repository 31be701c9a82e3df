// Package monotime holds times in one word, so that they fit into an atomic. They are those of
// the monotonic clock: setting the wall clock of the host changes no difference between them.
// [time.Time.UnixNano] is a time of the wall clock, and jumps when that is set.
package monotime

import "time"

// began is near the beginning of the process.
var began = time.Now()

// century is how long before began the times of this package begin. The fake clock of
// testing/synctest is decades behind.
const century = 100 * 365 * 24 * time.Hour

// Now returns the current time in nanoseconds. It is positive: 0 may stand for no time, which is
// before all others.
func Now() int64 { return of(time.Since(began)) }

// Of returns a time that [time.Now] has returned, or that differs from such a time by a
// duration. It is positive. For a time without a reading of the monotonic clock, such as one that
// was parsed, the wall clock decides.
func Of(t time.Time) int64 { return of(t.Sub(began)) }

// Time returns a time of Now or Of as package time has it.
func Time(at int64) time.Time {
	now := time.Now()
	return now.Add(-Age(at, now))
}

// Age returns how long before now a time of Now or Of was.
func Age(at int64, now time.Time) time.Duration { return time.Duration(Of(now) - at) }

func of(sinceBegan time.Duration) int64 {
	return int64(century + min(max(sinceBegan, 1-century), century))
}
