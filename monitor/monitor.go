package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Monitor feeds a [Tracker] from a [Source]. All of its methods may be called
// concurrently.
type Monitor struct {
	source  Source
	tracker *Tracker
	queue   int
	ran     atomic.Bool
	done    chan struct{} // closed when Run ends
	lost    atomic.Uint64

	delivering sync.Mutex // held while events are handed out, in their order

	// mu guards the following.
	mu      sync.Mutex
	readers map[*reader]struct{}
}

// reader is somebody who reads events.
type reader struct {
	events chan Event
	gone   chan struct{} // closed when it has enough
}

// New makes a monitor of what comes from source, which Run closes. It returns
// an error that wraps ErrConfig; the source is then still the caller's.
func New(source Source, conf *Config) (*Monitor, error) {
	if source == nil {
		return nil, fmt.Errorf("monitor: %w: no source", ErrConfig)
	}
	tracker, err := NewTracker(conf)
	if err != nil {
		return nil, err
	}
	if k, ok := source.(*kernel); ok {
		tracker.offload, tracker.slack = k, behind
	}
	return &Monitor{
		source:  source,
		tracker: tracker,
		queue:   tracker.conf.EventQueue,
		done:    make(chan struct{}),
		readers: make(map[*reader]struct{}),
	}, nil
}

// Run reads the source until it ends, or ctx is done, and closes it. It returns
// nil at the end of a file, the context's error, ErrRunning if it has been
// called before, or the source's error. What was seen stays.
func (m *Monitor) Run(ctx context.Context) (err error) {
	if m.ran.Swap(true) {
		return fmt.Errorf("monitor: %w", ErrRunning)
	}
	defer close(m.done)
	stop := context.AfterFunc(ctx, func() { m.end() })
	defer func() {
		stop()
		err = errors.Join(err, m.end())
	}()
	if k, ok := m.source.(*kernel); ok {
		following, stop := context.WithCancel(ctx)
		var done sync.WaitGroup
		done.Go(func() { k.follow(following, func(now time.Time) { m.tick(ctx, now) }) })
		defer done.Wait()
		defer stop()
	}
	var p Packet
	for {
		if err := m.source.Read(&p); err != nil {
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed):
				return nil
			}
			return err
		}
		m.tracker.Packet(&p)
		if m.tracker.wanted.Load() {
			m.deliver(ctx)
		}
	}
}

// tick lets time pass where no packet says so: what that brings about is told, too.
func (m *Monitor) tick(ctx context.Context, now time.Time) {
	m.tracker.tick(now.UnixNano())
	if m.tracker.wanted.Load() {
		m.deliver(ctx)
	}
}

// end closes the source, of which nothing is lost that it has counted.
func (m *Monitor) end() error {
	m.tracker.settleAll()
	return m.source.Close()
}

// deliver hands events to all who read them. Who is too slow makes a file wait,
// and loses events of a live source.
func (m *Monitor) deliver(ctx context.Context) {
	m.delivering.Lock()
	defer m.delivering.Unlock()
	events := m.tracker.take()
	if len(events) == 0 {
		return
	}
	m.mu.Lock()
	readers := make([]*reader, 0, len(m.readers))
	for r := range m.readers {
		readers = append(readers, r)
	}
	m.mu.Unlock()
	for _, e := range events {
		for _, r := range readers {
			m.hand(ctx, r, e)
		}
	}
}

func (m *Monitor) hand(ctx context.Context, r *reader, e Event) {
	select {
	case r.events <- e:
		return
	default:
	}
	if m.source.Live() {
		m.lost.Add(1)
		return
	}
	select {
	case r.events <- e:
	case <-r.gone:
	case <-ctx.Done():
	}
}

// Events yields what happens from the call on, until Run ends, ctx is done, or
// the loop is left. Begin before Run to see all of it. Each caller has a queue of
// its own, [Config.EventQueue] long: of a live source it loses what it does not
// take in time, which Stats counts; a file waits for it.
func (m *Monitor) Events(ctx context.Context) iter.Seq[Event] {
	r := &reader{events: make(chan Event, m.queue), gone: make(chan struct{})}
	m.mu.Lock()
	m.readers[r] = struct{}{}
	m.tracker.wanted.Store(true)
	m.mu.Unlock()
	var once sync.Once
	leave := func() { once.Do(func() { m.leave(r) }) }
	stop := context.AfterFunc(ctx, leave)
	return func(yield func(Event) bool) {
		defer leave()
		defer stop()
		for {
			select {
			case e := <-r.events:
				if !yield(e) {
					return
				}
			case <-ctx.Done():
				return
			case <-m.done:
				for { // what was delivered before the end
					select {
					case e := <-r.events:
						if !yield(e) {
							return
						}
					default:
						return
					}
				}
			}
		}
	}
}

func (m *Monitor) leave(r *reader) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.readers, r)
	close(r.gone)
	if len(m.readers) == 0 {
		m.tracker.wanted.Store(false)
	}
}

// Connections yields all connections that are kept, as [Tracker.Connections] does.
func (m *Monitor) Connections() iter.Seq[Connection] { return m.tracker.Connections() }

// Tracker returns the tracker, whose views show all state.
func (m *Monitor) Tracker() *Tracker { return m.tracker }

// Stats returns the counters.
func (m *Monitor) Stats() Stats {
	s := m.tracker.Stats()
	s.SourceDropped = m.source.Dropped()
	s.EventsLost = m.lost.Load()
	return s
}
