package nettest

import (
	"time"
	"unsafe"
)

// SetClock returns what [time.Now] would have returned in place of t on a host whose wall clock
// had been set by some whole seconds: the reading of the monotonic clock is the same. It panics
// for a time without such a reading.
func SetClock(t time.Time, by time.Duration) time.Time {
	type layout struct {
		wall uint64 // 1 bit: there is a monotonic reading; 33 bits: seconds; 30 bits: nanoseconds
		ext  int64
		loc  *time.Location
	}
	set := t
	(*layout)(unsafe.Pointer(&set)).wall += uint64(by/time.Second) << 30
	if set.UnixNano()-t.UnixNano() != int64(by) || !set.Equal(t) || set.Sub(t) != 0 {
		panic("nettest: time.Time has another layout, or no monotonic reading")
	}
	return set
}
