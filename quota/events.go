package quota

import (
	"context"
	"iter"
	"net/netip"
	"sync"
	"time"
)

// Event says that a source has been kept out. There is at most one a second of
// each source, and a hundred a second of all.
type Event struct {
	// Time is when, and Source who it was.
	Time   time.Time
	Source netip.Prefix
	// Action is what was done, or would have been in a dry run: Refuse or
	// Drop.
	Action Action
	Reason Reason
	// Connections and HalfOpen are what the source had then.
	Connections, HalfOpen int
	// Refused and Dropped are what it had been refused, and lost, in all.
	Refused, Dropped uint64
}

const (
	// eventQueue is how many events wait for a reader.
	eventQueue = 256
	// quiet is how long a source is not spoken of again.
	quiet = instant(time.Second)
)

// eventRate is that of all sources.
var eventRate = newRate(100, 100)

// hub hands events to those who want them.
type hub struct {
	bucket sharedBucket

	mu      sync.Mutex // guards the following
	readers map[chan Event]struct{}
}

// Events yields what happens from now on, until ctx is done. A reader that does
// not keep up loses some ([Stats.LostEvents]).
func (c *Controller) Events(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		events := c.events.join()
		defer c.events.leave(events)
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-events:
				if !yield(e) {
					return
				}
			}
		}
	}
}

func (h *hub) join() chan Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readers == nil {
		h.readers = make(map[chan Event]struct{})
	}
	events := make(chan Event, eventQueue)
	h.readers[events] = struct{}{}
	return events
}

func (h *hub) leave(events chan Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.readers, events)
}

// noteLocked counts for a source that it was kept out, if it was, and makes an
// event of it if one is due.
func (c *Controller) noteLocked(s *source, addr netip.Addr, what Action, why Reason, kept bool, now instant) (e Event, due bool) {
	if s == nil || !kept {
		return Event{}, false
	}
	if what == Drop {
		s.dropped++
	} else {
		s.refused++
	}
	if now-s.reported < quiet {
		return Event{}, false
	}
	s.reported = now
	return Event{
		Time: c.time(now), Source: c.Source(addr), Action: what, Reason: why,
		Connections: int(s.live), HalfOpen: s.attempts(), Refused: s.refused, Dropped: s.dropped,
	}, true
}

// report hands an event to the log and to who reads events, unless there are too
// many.
func (c *Controller) report(e Event) {
	if !c.events.bucket.take(eventRate, c.now()) {
		c.counters.lost.Add(1)
		return
	}
	c.log.Warn("kept out", "source", e.Source, "action", e.Action, "reason", e.Reason,
		"connections", e.Connections, "half_open", e.HalfOpen, "refused", e.Refused, "dropped", e.Dropped, "dry_run", c.conf.DryRun)
	c.events.mu.Lock()
	defer c.events.mu.Unlock()
	for events := range c.events.readers {
		select {
		case events <- e:
		default:
			c.counters.lost.Add(1)
		}
	}
}
