package p2p

import (
	"context"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestClockThatIsSet checks that setting the wall clock changes nothing of what a connection
// knows of its paths and relays: how long they have been silent, and what came after what.
func TestClockThatIsSet(t *testing.T) {
	for _, by := range []time.Duration{-time.Hour, time.Hour} {
		set := func(now time.Time) time.Time { return nettest.SetClock(now, by) }
		l := new(link)
		before := set(time.Now().Add(-time.Second)) // seen before the clock was set back to what it is now
		l.activity.received()
		l.direct.activity.received()
		l.heardElsewhere(nil)
		l.activity.sent(2)
		soon := set(time.Now().Add(time.Minute))
		for what, d := range map[string]time.Duration{
			"silence": l.activity.silence(soon), "overdue": l.activity.overdue(soon),
			"idle": l.activity.idle(soon), "link is idle": l.idle(soon),
		} {
			if d < time.Minute || d > 2*time.Minute {
				t.Errorf("clock set by %v: %s after a minute: %v", by, what, d)
			}
		}
		if !l.heardSince(before) || l.heardSince(soon) {
			t.Errorf("clock set by %v: heard in the last second: %v, in the next minute: %v", by, l.heardSince(before), l.heardSince(soon))
		}
		if only := (&link{}); only.heardSince(before) {
			t.Errorf("clock set by %v: heard, though nothing was", by)
		}
		askWithClockSet(t, by)
	}
}

// askWithClockSet checks questions to a relay.
func askWithClockSet(t *testing.T, by time.Duration) {
	t.Helper()
	now := time.Now()
	soon := nettest.SetClock(now.Add(2*time.Second), by)
	c := new(relayClient)
	if !c.asks.begin(now, time.Second) {
		t.Fatal("the first question was not asked")
	}
	if d := c.unanswered(soon); d != 2*time.Second {
		t.Errorf("clock set by %v: unanswered for %v after two seconds", by, d)
	}
	c.asks.end()
	if c.asks.begin(nettest.SetClock(now.Add(time.Second/2), by), time.Second) {
		t.Errorf("clock set by %v: asked again after half a second", by)
	}
	if !c.asks.begin(soon, time.Second) {
		t.Errorf("clock set by %v: not asked again after two seconds", by)
	}
	if !c.asks.pose(context.Background(), func(context.Context) error { return nil }) || !c.answeredSince(soon.Add(-time.Minute)) || c.answeredSince(soon.Add(time.Minute)) {
		t.Errorf("clock set by %v: the answer of this moment has another time", by)
	}
}
