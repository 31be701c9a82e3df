package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// outage is how long a fault lasts.
const outage = 700 * time.Millisecond

// fault is a fault of the network and its repair.
type fault struct {
	name        string
	begin, mend func() error
}

// faults returns all faults, each of which is as likely.
func (s *stage) faults() []fault {
	nothing := func() error { return nil }
	list := []fault{
		{"relay restarted", s.restart, nothing},
		{"relay's sends refused", func() error { return setRefused(s.hosts.relay, true) }, func() error { return setRefused(s.hosts.relay, false) }},
	}
	for side, host := range s.hosts.sides {
		list = append(list,
			fault{"link down", func() error { return setLink(s.hosts.relay, towards(side), false) },
				func() error { return setLink(s.hosts.relay, towards(side), true) }},
			fault{"route to the relay gone", func() error { return setRoute(host, side, false) },
				func() error { return setRoute(host, side, true) }},
			fault{"peers' sends refused", func() error { return setRefused(host, true) }, func() error { return setRefused(host, false) }},
		)
	}
	return list
}

// fail causes one fault after the other, in rounds of all, until ctx is done.
func (s *stage) fail(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(s.options.seed, 0))
	list := s.faults()
	for {
		rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		for _, f := range list {
			if !pause(ctx, s.options.every) {
				return nil
			}
			if err := f.begin(); err != nil {
				return errors.Join(fmt.Errorf("%s: %w", f.name, err), f.mend())
			}
			pause(ctx, outage)
			if err := f.mend(); err != nil {
				return fmt.Errorf("mend %s: %w", f.name, err)
			}
			s.result.happened(f.name)
		}
	}
}

// pause waits for a time. It returns false if ctx is done.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
