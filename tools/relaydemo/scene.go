//go:build unix

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/quicway/quicway/p2p"
)

// scene is a run in progress.
type scene struct {
	*options
	ctx    context.Context
	relays *relays
	meter  *meter
	began  time.Time
}

// say prints a line of the timeline.
func (s *scene) say(format string, args ...any) {
	fmt.Fprintf(s.out, "%9d ms  %s\n", time.Since(s.began).Milliseconds(), fmt.Sprintf(format, args...))
}

// printPaths prints the changes of a connection's path.
func (s *scene) printPaths(c *p2p.Conn) {
	for path := range c.PathEvents(s.ctx) {
		s.say("packets go through %s: %v", s.relays.name(path.Relay), path.Why)
	}
}

// repeat ends the relay that carries the pings, and starts it again, some times. It returns
// the longest silence at each of them.
func (s *scene) repeat(times int, what string, end func(*member) error) (silences []time.Duration, err error) {
	for i := range times {
		s.meter.reset()
		if err := sleep(s.ctx, s.pause); err != nil {
			return nil, err
		}
		undisturbed := s.meter.longest().length
		m := s.relays.at(s.meter.carrier())
		if m == nil {
			return nil, fmt.Errorf("the carrying relay %q is none of the relays", s.meter.carrier())
		}
		s.say("%s %s (%d of %d)", what, m.name, i+1, times)
		s.meter.reset()
		before := time.Now()
		if err := end(m); err != nil {
			return nil, err
		}
		if err := s.meter.recovers(s.ctx); err != nil {
			return nil, err
		}
		silence := s.meter.longest()
		silences = append(silences, silence.length)
		s.say("silent for %d ms, until %d ms after that; before it was %d ms at most",
			silence.length.Milliseconds(), silence.end.Sub(before).Milliseconds(), undisturbed.Milliseconds())
		if err := s.relays.start(m); err != nil {
			return nil, err
		}
	}
	return silences, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
