package quota

import (
	"math"
	"sync/atomic"
	"time"
)

// bucket is a token bucket, stored as the instant at which it is full again (the
// generic cell rate algorithm of ITU-T I.371). The zero bucket is full.
type bucket instant

// rate is the speed at which a bucket fills. The zero rate is no limit.
type rate struct {
	interval instant // for one token
	depth    instant // for a whole bucket
}

// newRate makes a rate of perSecond tokens a second. If perSecond is 0 or less, the
// rate is no limit.
func newRate(perSecond float64, burst int) rate {
	if perSecond <= 0 {
		return rate{}
	}
	interval := max(instant(math.Round(min(float64(time.Second)/perSecond, float64(24*time.Hour)))), 1)
	if burst <= 0 {
		burst = defaultBurst(perSecond)
	}
	return rate{interval, interval * min(instant(burst), math.MaxInt64/4/interval)}
}

// defaultBurst is the number of tokens that a rate gives in one second, and at least 1.
func defaultBurst(perSecond float64) int {
	return max(int(math.Ceil(min(perSecond, math.MaxInt32))), 1)
}

// limited reports whether the rate is a limit.
func (r rate) limited() bool { return r.interval > 0 }

// ok reports whether the bucket holds a token.
func (r rate) ok(b bucket, now instant) bool { return r.wait(b, now) <= 0 }

// wait returns how long it takes until the bucket holds a token.
func (r rate) wait(b bucket, now instant) instant {
	if r.interval == 0 {
		return 0
	}
	return max(instant(b), now) + r.interval - r.depth - now
}

// take takes a token. If the bucket holds none, it owes one afterwards.
func (r rate) take(b *bucket, now instant) {
	if r.interval > 0 {
		*b = bucket(max(instant(*b), now) + r.interval)
	}
}

// sharedBucket is a bucket that many goroutines use without a lock.
type sharedBucket struct{ full atomic.Int64 }

// take takes a token if there is one.
func (b *sharedBucket) take(r rate, now instant) bool {
	if !r.limited() {
		return true
	}
	for {
		old := b.full.Load()
		next := bucket(old)
		if !r.ok(next, now) {
			return false
		}
		r.take(&next, now)
		if b.full.CompareAndSwap(old, int64(next)) {
			return true
		}
	}
}
