package sni

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

const (
	// spliceTick is the time between two looks at the offered connections.
	spliceTick = 100 * time.Millisecond
	// maxTakeovers is the number of connections that go into the kernel at the same time.
	maxTakeovers = 64
)

// Reasons of our own; the others are those of the kernel path.
const (
	reasonPolicy = "policy" // a policy has decided
	reasonOther  = "other"  // an error without a reason
)

// splicer decides which connections the kernel relays. One goroutine asks the policies; each
// takeover has one of its own while it lasts. The methods of a nil splicer do nothing.
type splicer struct {
	conf     *Splice
	kernel   kernelPath
	log      *slog.Logger
	minBytes uint64
	pauses   pauses
	counters spliceCounters
	places   chan struct{} // has an element for each takeover that goes on
	wake     chan struct{} // has an element if a connection was offered

	mu      sync.Mutex // guards the following, and each watch
	offered map[*conn]*watch
}

// watch is what the splicer remembers of a connection.
type watch struct {
	due      time.Time // when the policy is asked
	busy     bool      // a takeover goes on
	inKernel bool      // when the policy was asked last
	refused  pause     // between refusals
	returned pause     // between ways back
	seen     sample
	rtts     [2]time.Duration // client's and upstream's
}

// sample has numbers of segments, or in the kernel of bytes.
type sample struct{ sent, again uint64 }

func newSplicer(conf *Splice, kernel kernelPath, log *slog.Logger) *splicer {
	return &splicer{
		conf: conf, kernel: kernel, log: log, minBytes: uint64(conf.MinBytes), pauses: defaultPauses,
		places: make(chan struct{}, maxTakeovers), wake: make(chan struct{}, 1),
		offered: make(map[*conn]*watch),
	}
}

// offer adds a connection that has relayed enough bytes.
func (s *splicer) offer(c *conn) {
	if c.offered.Swap(true) {
		return
	}
	s.mu.Lock()
	s.offered[c] = &watch{due: c.began.Add(s.conf.MinAge)}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// forget removes a connection that has ended.
func (s *splicer) forget(c *conn) {
	if s == nil || !c.offered.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.offered, c)
}

// run asks policies until ctx is done. While no connections are offered it sleeps. start runs
// takeovers.
func (s *splicer) run(ctx context.Context, start func(func())) {
	ticker := time.NewTicker(spliceTick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		for s.any() {
			select {
			case <-ctx.Done():
				return
			case now := <-ticker.C:
				s.tick(now, start)
			}
		}
	}
}

func (s *splicer) any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.offered) > 0
}

// tick asks the policies of all connections that are due.
func (s *splicer) tick(now time.Time, start func(func())) {
	for _, c := range s.due(now) {
		s.ask(c, now, start)
	}
}

func (s *splicer) due(now time.Time) (due []*conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, w := range s.offered {
		if !w.busy && !now.Before(w.due) {
			due = append(due, c)
		}
	}
	return due
}

// ask asks the policy of a connection, and moves the connection if it has to.
func (s *splicer) ask(c *conn, now time.Time, start func(func())) {
	s.mu.Lock()
	w := s.offered[c]
	s.mu.Unlock()
	if w == nil {
		return // it has ended
	}
	candidate := c.candidate(w, now)
	policy := s.policyOf(c)
	want := policy(candidate)
	switch {
	case candidate.InKernel && want:
		s.later(w, now.Add(s.pauses.inKernel))
	case candidate.InKernel:
		s.later(w, now.Add(s.pauses.inKernel))
		c.askBack(reasonPolicy)
	case want:
		s.begin(c, w, start)
	default:
		s.counters.notTaken.add(reasonPolicy)
		s.later(w, now.Add(w.refused.next(s.pauses.minRefused, s.pauses.maxRefused)))
	}
}

func (s *splicer) policyOf(c *conn) Policy {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.policy != nil {
		return c.policy
	}
	return s.conf.Policy
}

// later has the policy asked at a time, or later if that was said meanwhile.
func (s *splicer) later(w *watch, due time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if due.After(w.due) {
		w.due = due
	}
}

// cameBack has a connection stay in userspace for a while that comes back from the kernel, each
// time for longer.
func (s *splicer) cameBack(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.offered[c]; w != nil {
		w.due = time.Now().Add(w.returned.next(s.pauses.minReturned, s.pauses.maxReturned))
	}
}

// begin starts a takeover, unless too many go on: the next tick comes to it again.
func (s *splicer) begin(c *conn, w *watch, start func(func())) {
	select {
	case s.places <- struct{}{}:
	default:
		return
	}
	t := c.beginTakeover()
	if t == nil {
		<-s.places
		return // it is ending, or is in the kernel in this moment
	}
	s.mu.Lock()
	w.busy = true
	s.mu.Unlock()
	start(func() {
		defer func() { <-s.places }()
		err := s.take(c, t)
		s.mu.Lock()
		defer s.mu.Unlock()
		w.busy = false
		w.due = s.after(w, err)
	})
}

// take moves a connection into the kernel.
func (s *splicer) take(c *conn, t *takeover) error {
	client, upstream, injected := c.forTakeover()
	pair, err := s.kernel.take(t.ctx, client, upstream, injected)
	if err != nil {
		if t.ctx.Err() == nil { // it was not aborted
			s.counters.notTaken.add(reasonOf(err))
			s.log.Debug("a connection is not in the kernel", "client", c.hello.Client, "name", c.hello.ServerName, "err", err)
		}
		c.endTakeover(t, nil)
		return err
	}
	s.counters.takeovers.Add(1)
	c.endTakeover(t, pair)
	return nil
}

// never is a time that does not come.
var never = time.Unix(1<<40, 0)

// after returns when a policy is asked again after a takeover, whose error is err.
func (s *splicer) after(w *watch, err error) time.Time {
	if err == nil {
		w.refused = pause{}
		return time.Now().Add(s.pauses.inKernel)
	}
	var why *notTaken
	if errors.As(err, &why) && why.final {
		return never
	}
	return time.Now().Add(w.refused.next(s.pauses.minRefused, s.pauses.maxRefused))
}

// reasonOf returns the reason of a kernel path's error.
func reasonOf(err error) string {
	var why *notTaken
	if errors.As(err, &why) {
		return why.reason
	}
	return reasonOther
}
