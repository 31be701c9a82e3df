package monitor

import (
	"math/bits"
	"time"
)

// timeFormat is the unit of times, and what is added to them: the unit is 10^-exponent seconds, or
// 2^-exponent.
type timeFormat struct {
	offset   int64 // in seconds
	exponent uint8
	binary   bool
}

// time returns the time of a number of units since 1970.
func (f timeFormat) time(units uint64) time.Time {
	seconds, nanoseconds := f.decimal(units)
	if f.binary {
		seconds, nanoseconds = f.ofTwo(units)
	}
	return time.Unix(int64(seconds)+f.offset, int64(nanoseconds)).UTC()
}

// ofTwo returns the seconds, and the nanoseconds beyond them, of units that are 2^-exponent seconds.
func (f timeFormat) ofTwo(units uint64) (seconds, nanoseconds uint64) {
	// Shifts by 64 and more give 0.
	seconds = units >> f.exponent
	high, low := bits.Mul64(units-seconds<<f.exponent, uint64(time.Second))
	if f.exponent >= 64 {
		return seconds, high >> (f.exponent - 64)
	}
	return seconds, high<<(64-f.exponent) | low>>f.exponent
}

// decimal is ofTwo for units that are 10^-exponent seconds.
func (f timeFormat) decimal(units uint64) (seconds, nanoseconds uint64) {
	const nano, most = 9, 19 // 10^19 is the largest power that fits
	if f.exponent <= nano {
		second := power(f.exponent)
		return units / second, units % second * power(nano-f.exponent)
	}
	if f.exponent <= most {
		second := power(f.exponent)
		return units / second, units % second / power(f.exponent-nano)
	}
	if f.exponent <= nano+most {
		return 0, units / power(f.exponent-nano)
	}
	return 0, 0
}

// power returns a power of ten, up to 10^19.
func power(exponent uint8) uint64 {
	n := uint64(1)
	for range exponent {
		n *= 10
	}
	return n
}
