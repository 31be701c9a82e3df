package quota

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

func TestEvents(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		c := mustNew(t, &Config{Source: Limits{Connections: 1}})
		ctx, cancel := context.WithCancel(t.Context())
		var got []Event
		done := make(chan struct{})
		go func() {
			defer close(done)
			for e := range c.Events(ctx) {
				got = append(got, e)
			}
		}()
		time.Sleep(time.Second)
		wantAdmit(t, c, "192.0.2.1:1", true, PassNew)
		for i := range 50 {
			wantAdmit(t, c, fmt.Sprintf("192.0.2.1:%d", 2+i), true, Connections)
		}
		time.Sleep(2 * time.Second)
		wantAdmit(t, c, "192.0.2.1:100", true, Connections)
		time.Sleep(time.Second)
		cancel()
		<-done
		if len(got) != 2 {
			t.Fatalf("%d events, want 2", len(got))
		}
		if e := got[1]; e.Source.String() != "192.0.2.1/32" || e.Action != Refuse || e.Reason != Connections || e.Connections != 1 || e.Refused != 51 {
			t.Errorf("got %+v", e)
		}
		if top := c.Top(1); len(top) != 1 || top[0].Refused != 51 || top[0].Connections != 1 || top[0].Admitted != 1 {
			t.Errorf("top is %+v", top)
		}
	})
}

// TestEventsAreFew checks that at most a hundred events are reported in a second, that at
// most eventQueue wait for a reader, and that the others are counted.
func TestEventsAreFew(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now, Source: Limits{Connections: 1}})
	events := c.reporter.join() // a reader that does not read
	defer c.reporter.leave(events)
	burst := func(n int) {
		for i := range n {
			from := nth(uint32(i)).String()
			defer wantAdmit(t, c, from, true, PassNew).Release()
			wantAdmit(t, c, from, true, Connections)
		}
	}
	burst(150)
	if n, lost := len(events), c.Stats().LostEvents; n != 100 || lost != 50 {
		t.Errorf("%d events, and %d lost, want 100 and 50", n, lost)
	}
	for range 2 {
		clock.advance(2 * time.Second)
		burst(100)
	}
	if n, lost := len(events), c.Stats().LostEvents; n != eventQueue || lost != 50+300-eventQueue {
		t.Errorf("%d events, and %d lost, want %d and %d", n, lost, eventQueue, 50+300-eventQueue)
	}
}
