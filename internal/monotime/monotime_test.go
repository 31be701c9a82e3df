package monotime

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestClockThatIsSet checks that setting the wall clock changes nothing.
func TestClockThatIsSet(t *testing.T) {
	for _, by := range []time.Duration{-time.Hour, time.Hour} {
		now := time.Now()
		set := nettest.SetClock(now, by)
		if Of(set) != Of(now) {
			t.Errorf("clock set by %v: the time is %v later", by, time.Duration(Of(set)-Of(now)))
		}
		if age := Age(Of(now), set.Add(time.Minute)); age != time.Minute {
			t.Errorf("clock set by %v: a minute ago was %v ago", by, age)
		}
	}
}

// TestNow checks that Now and Of have the same clock, also the fake one of a test, and that no
// time is 0.
func TestNow(t *testing.T) {
	if first, last := Of(time.Time{}), Of(time.Unix(1<<40, 0)); first <= 0 || last <= Now() {
		t.Errorf("times from %d to %d", first, last)
	}
	if now := Now(); Of(time.Now()) < now {
		t.Error("Of is behind Now")
	}
	if at := time.Now(); !Time(Of(at)).Equal(at) {
		t.Errorf("%v has become %v", at, Time(Of(at)))
	}
	synctest.Test(t, func(t *testing.T) {
		at := Now()
		time.Sleep(time.Hour)
		if at <= 0 {
			t.Errorf("the fake clock says %d, want a positive number", at)
		}
		if age := Age(at, time.Now()); age != time.Hour || Now()-at != int64(time.Hour) {
			t.Errorf("an hour ago was %v ago", age)
		}
	})
}
