package quota

import (
	"context"
	"iter"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// Event reports that a source was kept out. There is at most one event a second for
// each source, and at most a hundred a second in all. The JSON names stay. Later versions
// may add fields.
type Event struct {
	// Time is when it happened.
	Time time.Time `json:"time"`
	// Source is the source that was kept out.
	Source netip.Prefix `json:"source"`
	// Action is what was done, or what would have been done in a dry run: Refuse
	// or Drop.
	Action Action `json:"action"`
	// Reason is why.
	Reason Reason `json:"reason"`
	// Connections and HalfOpen are the numbers that the source had at Time.
	Connections int `json:"connections"`
	HalfOpen    int `json:"half_open"`
	// Refused and Dropped count what the source has been refused and has lost so
	// far, as in [SourceStats].
	Refused uint64 `json:"refused"`
	Dropped uint64 `json:"dropped"`
}

const (
	// eventQueue is the number of events that wait for a reader.
	eventQueue = 256
	// eventInterval is the time between two events of one source.
	eventInterval = instant(time.Second)
)

// eventRate is the rate of events of all sources.
var eventRate = newRate(100, 100)

// Events yields events from now on, until ctx is done. A reader that is too slow
// loses events ([Stats].LostEvents).
func (c *Controller) Events(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		events := c.reporter.join()
		defer c.reporter.leave(events)
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

// reporter counts for each source what was kept out, and reports it to the readers of
// events, the log, and the enforcer.
type reporter struct {
	clock       clock
	log         *slog.Logger
	dryRun      bool
	sources     *sourceTable
	enforcement *enforcement
	counters    *counters
	bucket      sharedBucket // of events

	mu      sync.Mutex // guards the following
	readers map[chan Event]struct{}
}

func (r *reporter) join() chan Event {
	events := make(chan Event, eventQueue)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.readers == nil {
		r.readers = make(map[chan Event]struct{})
	}
	r.readers[events] = struct{}{}
	return events
}

func (r *reporter) leave(events chan Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.readers, events)
}

// note is what is left to do about a source when its shard is unlocked.
type note struct {
	event  *Event // to report; or nil
	source key
	update bool // source.turnedAway has changed
}

// keptOutLocked counts that something of a source, which may be nil, was refused or
// dropped. The caller passes the note to unlock.
func (r *reporter) keptOutLocked(s *source, action Action, why Reason, now instant) (n note) {
	if s == nil {
		return note{}
	}
	if action == Drop {
		s.dropped++
	} else {
		s.refused++
	}
	if now-s.reported >= eventInterval {
		s.reported = now
		n.event = r.eventLocked(s, action, why, now)
	}
	n.source, n.update = s.key, r.enforcement.turnAwayLocked(s, why, now)
	return n
}

// eventLocked returns an event about a source, or nil beyond the rate of events.
func (r *reporter) eventLocked(s *source, action Action, why Reason, now instant) *Event {
	if !r.bucket.take(eventRate, now) {
		r.counters.lost.Add(1)
		return nil
	}
	return &Event{
		Time: r.clock.time(now), Source: r.sources.prefix(s.key), Action: action, Reason: why,
		Connections: int(s.count[stageLive]), HalfOpen: s.halfOpen(), Refused: s.refused, Dropped: s.dropped,
	}
}

// unlock unlocks a shard after a decision about one of its sources, and then does what
// the note says.
func (r *reporter) unlock(sh *shard, n note) {
	sh.mu.Unlock()
	if n.event != nil {
		r.report(*n.event)
	}
	if n.update {
		r.enforcement.updateSource(sh, n.source)
	}
}

// report hands an event to the log and to the readers.
func (r *reporter) report(e Event) {
	r.log.Warn("kept out", "source", e.Source, "action", e.Action, "reason", e.Reason,
		"connections", e.Connections, "half_open", e.HalfOpen, "refused", e.Refused, "dropped", e.Dropped, "dry_run", r.dryRun)
	r.mu.Lock()
	defer r.mu.Unlock()
	for events := range r.readers {
		select {
		case events <- e:
		default:
			r.counters.lost.Add(1)
		}
	}
}
