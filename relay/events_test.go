package relay

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// TestEventsAreBounded checks that a client that has not asked for its events yet gets the first
// ones, and that others are dropped.
func TestEventsAreBounded(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice := l.peer()
		c := alice.client()
		for i := range 2 * eventQueue {
			c.notify(control.Event{Type: control.EventGone, Session: control.SessionID{1, byte(i)}})
		}
		events := alice.listen()
		for i := range eventQueue {
			if e := l.next(events, control.EventGone); e.Session != (control.SessionID{1, byte(i)}) {
				l.Fatalf("event %d is %v", i, e)
			}
		}
		synctest.Wait()
		if c.events.queue != nil || c.events.writing.running {
			l.Error("the queue is not empty")
		}
		c.notify(control.Event{Type: control.EventJoined})
		l.next(events, control.EventJoined)
	})
}

// TestEventsOfOneWhoDoesNotRead checks that a client that does not read its events costs no more
// than the queue and one goroutine, and that it can end the request and make another one.
func TestEventsOfOneWhoDoesNotRead(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice := l.peer()
		c := alice.client()
		stream := alice.openEvents()
		synctest.Wait()
		for range 300 {
			for range eventQueue {
				c.notify(control.Event{Type: control.EventGone, Session: control.NewSessionID()})
			}
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		if n := len(c.events.queue); n != eventQueue || !c.events.writing.running {
			l.Errorf("%d events are queued, want %d", n, eventQueue)
		}
		stream.Close()
		time.Sleep(time.Second)
		synctest.Wait()
		if c.events.asked || c.events.writing.running {
			l.Error("the request has not ended")
		}
		c.notify(control.Event{Type: control.EventJoined})
		l.next(alice.listen(), control.EventJoined)
	})
}
