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

	"github.com/quicway/quicway/internal/datapath"
)

// Monitor passes the packets of a [Source] to a [Tracker]. All methods may be
// called concurrently.
type Monitor struct {
	source  Source
	kernel  *kernel // the source, if the kernel counts for it, or nil
	tracker *Tracker
	queue   int
	ran     atomic.Bool
	done    chan struct{} // closed when Run ends
	lost    atomic.Uint64

	delivering sync.Mutex // held while events are delivered, which keeps their order

	// mu guards the following.
	mu      sync.Mutex
	readers map[*reader]struct{}
}

// reader reads events.
type reader struct {
	events chan Event
	gone   chan struct{} // closed when it stops reading
}

// New returns a monitor for a source. [Monitor.Run] closes the source. A nil conf
// is the zero [Config]. The error wraps [ErrConfig]; then the caller has to close
// the source.
func New(source Source, conf *Config) (*Monitor, error) {
	if source == nil {
		return nil, fmt.Errorf("monitor: %w: no source", ErrConfig)
	}
	m := &Monitor{source: source, done: make(chan struct{}), readers: make(map[*reader]struct{})}
	var flows *datapath.Monitor
	if k, ok := source.(*kernel); ok {
		m.kernel, flows = k, k.flows
	}
	tracker, err := newOffloadedTracker(conf, flows)
	if err != nil {
		return nil, err
	}
	m.tracker, m.queue = tracker, tracker.conf.EventQueue
	return m, nil
}

// Run reads the source until it ends or ctx is done, and then closes it. It
// returns nil at the end of a file, the error of ctx, [ErrRunning] if Run was
// called before, or the error of the source. The tracker keeps what it has.
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
	if m.kernel != nil {
		ticking, stop := context.WithCancel(ctx)
		var done sync.WaitGroup
		done.Go(func() { m.tickWhileIdle(ticking, ctx) })
		defer done.Wait()
		defer stop()
	}
	return m.readSource(ctx)
}

// readSource reads the source until it ends or ctx is done.
func (m *Monitor) readSource(ctx context.Context) error {
	var p Packet
	var next func(*Packet) bool
	if f, ok := m.source.(*file); ok {
		next = f.readReady
	}
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
		if m.tracker.packets(&p, next) {
			m.deliver(ctx)
		}
	}
}

// tickWhileIdle advances the tracker's clock while the kernel reports no packets,
// until ticking is done. Events are delivered until ctx is done.
func (m *Monitor) tickWhileIdle(ticking, ctx context.Context) {
	ticker := time.NewTicker(time.Duration(sweepEvery))
	defer ticker.Stop()
	for {
		select {
		case <-ticking.Done():
			return
		case <-ticker.C:
			if m.kernel.flows.Pending() {
				continue
			}
			m.tracker.tick(m.kernel.flows.Now().UnixNano())
			if m.tracker.events.wanted.Load() {
				m.deliver(ctx)
			}
		}
	}
}

// end reads the kernel's counters for the last time and closes the source.
func (m *Monitor) end() error {
	m.tracker.settle()
	return m.source.Close()
}

// deliver passes pending events to all readers. If a reader's queue is full, a
// file waits for it, and the reader loses events of a live source.
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

// hand adds an event to a reader's queue.
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

// Events returns an iterator over the events from this call on, until Run ends, ctx
// is done, or the loop is left. Call it before Run to get all events, and range
// over it once. Each call has a queue of [Config.EventQueue] events. If the queue
// is full, events of a live source are dropped and counted
// ([Stats].EventsLost), and a file waits.
func (m *Monitor) Events(ctx context.Context) iter.Seq[Event] {
	r := &reader{events: make(chan Event, m.queue), gone: make(chan struct{})}
	m.mu.Lock()
	m.readers[r] = struct{}{}
	m.tracker.events.wanted.Store(true)
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
				for { // deliver what was queued before the end
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

// leave removes a reader.
func (m *Monitor) leave(r *reader) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.readers, r)
	close(r.gone)
	if len(m.readers) == 0 {
		m.tracker.events.wanted.Store(false)
	}
}

// Connections is [Tracker.Connections].
func (m *Monitor) Connections() iter.Seq[Connection] { return m.tracker.Connections() }

// Tracker returns the tracker.
func (m *Monitor) Tracker() *Tracker { return m.tracker }

// Stats returns the counters of the tracker, the source and the event queues.
func (m *Monitor) Stats() Stats {
	s := m.tracker.Stats()
	s.SourceDropped = m.source.Dropped()
	s.EventsLost = m.lost.Load()
	return s
}
