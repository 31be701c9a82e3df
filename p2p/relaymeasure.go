package p2p

import (
	"context"
	"errors"
	"time"
)

// Timing of the measurements.
const (
	// keptRelays is the number of control connections that are kept, to the first relays
	// in the order.
	keptRelays = 2
	// measureEvery is the period in which the round-trip time to a relay is measured,
	// and measureKept that of those whose control connections are kept. A relay that has
	// not answered is tried again after measureFailed.
	measureEvery  = 5 * time.Minute
	measureKept   = time.Minute
	measureFailed = 30 * time.Second
	// measureWanted is the same while a connection needs one, for wantedFor.
	measureWanted = 2 * time.Second
	wantedFor     = 10 * time.Second
	// listEvery is how often the list looks for what is due.
	listEvery = 10 * time.Second
	// sourceEvery is how often [Config.RelaySource] is asked, and sourceTimeout how long
	// it may take.
	sourceEvery   = 5 * time.Minute
	sourceTimeout = 30 * time.Second
)

// start starts run, if there are several relays.
func (s *relayList) start() {
	if !s.hasSeveral() || s.endpoint.enter() != nil {
		return
	}
	s.mu.Lock()
	running := s.running
	s.running = true
	s.mu.Unlock()
	if running {
		s.endpoint.tasks.Done()
		notify(s.look)
		return
	}
	go func() {
		defer s.endpoint.tasks.Done()
		s.run()
	}()
}

// run measures the relays until the endpoint is closed, or only one is left.
func (s *relayList) run() {
	e := s.endpoint
	var sourced time.Time
	for e.ctx.Err() == nil {
		now := time.Now()
		if e.conf.RelaySource != nil && (sourced.IsZero() || now.Sub(sourced) >= sourceEvery) {
			sourced = now
			s.startLoad()
		}
		for _, entry := range s.due(now) {
			e.tasks.Go(func() { s.measure(entry) })
		}
		if s.stopped() {
			return
		}
		select {
		case <-e.ctx.Done():
		case <-s.look:
		case <-time.After(listEvery):
			s.keep()
		}
	}
}

// stopped ends run if only one relay is left.
func (s *relayList) stopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.entries) > 1 || s.endpoint.conf.RelaySource != nil {
		return false
	}
	for _, e := range s.entries {
		if e.kept != nil {
			s.endpoint.relays.release(e.kept)
			e.kept = nil
		}
	}
	s.running = false
	return true
}

// startLoad asks Config.RelaySource in the background: it may block, and the relays that are
// known are measured meanwhile.
func (s *relayList) startLoad() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loading {
		s.loading = true
		s.endpoint.tasks.Go(s.load)
	}
}

// load asks Config.RelaySource. The relays of the last time stay if that fails.
func (s *relayList) load() {
	e := s.endpoint
	ctx, cancel := context.WithTimeout(e.ctx, sourceTimeout)
	defer cancel()
	more, err := e.conf.RelaySource(ctx)
	if err != nil {
		e.log.Warn("cannot get the list of relays", "err", err)
	}
	s.mu.Lock()
	s.loaded, s.loading = err, false
	var gone []*relayClient
	if err == nil {
		gone = s.setLocked(more)
	}
	s.announceLocked()
	s.mu.Unlock()
	for _, c := range gone {
		e.relays.release(c)
	}
	notify(s.look)
}

// want has relays that have not answered tried again at once.
func (s *relayList) want() {
	s.mu.Lock()
	s.wanted = time.Now()
	s.mu.Unlock()
	notify(s.look)
}

// announceLocked wakes those who wait for a relay, and the mailbox.
func (s *relayList) announceLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
	notify(s.endpoint.mailbox.look)
}

// due returns the relays that are to be measured.
func (s *relayList) due(now time.Time) []*relayEntry {
	needed := s.isNeeded(now)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetLocked(now)
	var due []*relayEntry
	for _, e := range s.entries {
		if e.burned || !e.learned.IsZero() && !needed {
			continue
		}
		period := measureEvery
		switch {
		case e.err != nil && !e.learned.IsZero():
			period = measureFailed << min(max(e.failures-1, 0), 4) // order may have noticed the failure
		case e.err != nil && now.Sub(s.wanted) < wantedFor:
			period = measureWanted
		case e.err != nil:
			period = measureFailed
		case e.kept != nil:
			period = measureKept
		}
		if !e.busy && (e.measured.IsZero() || now.Sub(e.measured) >= period) {
			e.busy = true
			due = append(due, e)
		}
	}
	return due
}

// measure connects to a relay, and asks it.
func (s *relayList) measure(entry *relayEntry) {
	e := s.endpoint
	ctx, cancel := context.WithTimeout(e.ctx, connectTimeout)
	defer cancel()
	s.mu.Lock()
	relay, known := entry.relay, !entry.measured.IsZero()
	s.mu.Unlock()
	client, err := e.relays.acquire(relay)
	if err == nil {
		defer e.relays.release(client)
		var conn *controlConn
		if conn, err = client.retried(ctx); err == nil && known {
			err = conn.ping(ctx)
		}
	}
	if e.ctx.Err() != nil {
		return
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && entry.err == nil {
		entry.err, entry.since = err, now
	}
	s.statusLocked(entry, now)
	entry.busy, entry.measured = false, now
	entry.failures++
	if err == nil {
		entry.failures = 0
	}
	entry.burned = !entry.learned.IsZero() && errors.Is(err, ErrRelayMismatch)
	s.announceLocked()
}

// keep keeps the control connections to the first relays.
func (s *relayList) keep() {
	e := s.endpoint
	first := make(map[relayKey]bool)
	for i, st := range s.order() {
		first[st.Relay.key()] = i < keptRelays
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, entry := range s.entries {
		switch want := first[entry.relay.key()] && entry.learned.IsZero(); {
		case want && entry.kept == nil:
			entry.kept, _ = e.relays.acquire(entry.relay)
		case !want && entry.kept != nil:
			e.relays.release(entry.kept)
			entry.kept = nil
		}
	}
	notify(e.mailbox.look)
}
