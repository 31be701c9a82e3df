package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/quicway/quicway/monitor"
)

const (
	maxRates       = 120
	sampleInterval = time.Second
)

// rate has the datagrams of one sampleInterval: all, and those of connections that were known.
type rate struct {
	Datagrams uint64 `json:"datagrams"`
	QUIC      uint64 `json:"quic"`
}

// rates are the latest rates of a monitor.
type rates struct {
	monitor *monitor.Monitor

	mu  sync.Mutex // guards the following
	all []rate     // the latest last
}

// sample adds a rate every sampleInterval until ctx is done.
func (r *rates) sample(ctx context.Context) {
	ticker := time.NewTicker(sampleInterval)
	defer ticker.Stop()
	var last monitor.Stats
	for {
		now := r.monitor.Stats()
		r.add(&last, &now)
		last = now
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// add adds the rate between two states of the counters.
func (r *rates) add(before, now *monitor.Stats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = latest(r.all, maxRates, rate{now.Datagrams - before.Datagrams, tracked(now) - tracked(before)})
}

// tracked returns the datagrams that were known to belong to a connection when they came. Both
// lines of the chart count a datagram at the same time.
func tracked(s *monitor.Stats) uint64 { return s.Tracked - s.Adopted }

// latest returns a copy of the rates.
func (r *rates) latest() []rate {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]rate{}, r.all...)
}

// latest appends to the latest values, of which there are at most limit.
func latest[T any](all []T, limit int, next T) []T {
	if len(all) >= limit {
		all = slices.Delete(all, 0, len(all)-limit+1)
	}
	return append(all, next)
}
