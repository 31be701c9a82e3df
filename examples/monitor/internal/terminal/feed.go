package terminal

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/monitor"
)

// The rate of snapshots. A snapshot copies all connections, so that the time between two of
// them grows with the time that one takes.
const (
	interval   = time.Second            // without a request
	minRest    = 100 * time.Millisecond // after a snapshot, also if there is a request
	restByWork = 4                      // the least rest in times of what the snapshot took
	maxMoves   = 50                     // changes of path that are kept
	maxClosed  = maxEnded               // closed connections between two snapshots
)

// snapshot is what the view shows at one moment. It does not change.
type snapshot struct {
	at    time.Time
	rows  []*row              // in no order
	moves []move              // the latest last
	moved uint64              // changes of path since the beginning
	whole *monitor.Connection // the connection whose details are shown, if it is known
	totals
	logged string // the latest line of the log
}

// totals are the counters of the monitor.
type totals struct {
	datagrams, quic float64 // a second
	lost            uint64  // packets that were lost in capture
	eventsLost      uint64
}

// move is a change of path.
type move struct {
	at         time.Time
	number     uint64 // of the connection
	name       string // of the server, or its address
	kind       monitor.ChangeKind
	from, to   netip.AddrPort
	confidence monitor.Level
}

// feed makes snapshots of a monitor.
type feed struct {
	monitor *monitor.Monitor
	log     *Log
	book    *book // used by run only
	last    lastStats
	asked   chan struct{} // a snapshot is wanted soon
	number  atomic.Uint64 // of the connection whose details are shown, or 0

	mu     sync.Mutex // guards the following
	moves  []move
	moved  uint64
	closed []monitor.Event
}

// lastStats are the counters at the latest measurement.
type lastStats struct {
	at    time.Time
	stats monitor.Stats
	totals
}

func newFeed(m *monitor.Monitor, log *Log) *feed {
	return &feed{monitor: m, log: log, book: newBook(), asked: make(chan struct{}, 1)}
}

// follow asks for snapshots with the details of a connection, or of none for 0. Numbers of
// connections begin with 1.
func (f *feed) follow(number uint64) {
	f.number.Store(number)
	f.ask()
}

func (f *feed) ask() {
	select {
	case f.asked <- struct{}{}:
	default:
	}
}

// listen reads events until ctx is done or the monitor ends.
func (f *feed) listen(ctx context.Context, all *sync.WaitGroup) {
	events := f.monitor.Events(ctx)
	all.Go(func() {
		for e := range events {
			f.event(&e)
		}
	})
}

// event keeps what the next snapshot needs of an event.
func (f *feed) event(e *monitor.Event) {
	switch {
	case e.Kind == monitor.EventPathChanged && e.Change != nil:
		f.mu.Lock()
		f.moved++
		f.moves = appendLatest(f.moves, newMove(e), maxMoves)
		f.mu.Unlock()
		f.ask()
	case e.Kind == monitor.EventNew || e.Kind == monitor.EventIdentified || e.Kind == monitor.EventMerged:
		f.ask()
	case e.Kind == monitor.EventClosed:
		f.mu.Lock()
		f.closed = appendLatest(f.closed, *e, maxClosed)
		f.mu.Unlock()
	}
}

// newMove returns the move of an event.
func newMove(e *monitor.Event) move {
	name := clean(e.Connection.ServerName)
	if p := pathInUse(&e.Connection); name == "" && p != nil {
		name = address(p.Server)
	}
	return move{
		at: e.Change.Time, number: e.Connection.Number, name: name,
		kind: e.Change.Kind, from: e.Change.From, to: e.Change.To, confidence: e.Change.Confidence,
	}
}

// appendLatest appends to a slice that keeps the latest limit values.
func appendLatest[T any](all []T, next T, limit int) []T {
	if len(all) >= limit {
		copy(all, all[1:])
		all = all[:limit-1]
	}
	return append(all, next)
}

// run makes snapshots until ctx is done.
func (f *feed) run(ctx context.Context, show func(*snapshot)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	wait := func(d time.Duration, asked <-chan struct{}) bool {
		timer.Reset(d)
		select {
		case <-ctx.Done():
			return false
		case <-asked:
		case <-timer.C:
		}
		return true
	}
	for {
		began := time.Now()
		s := f.snapshot(began)
		rest, further := pauses(time.Since(began))
		show(s)
		if !wait(rest, nil) || !wait(further, f.asked) {
			return
		}
	}
}

// pauses returns for how long there is no snapshot after one that took some time, and for how
// much longer unless one is asked for.
func pauses(took time.Duration) (rest, further time.Duration) {
	rest = max(minRest, restByWork*took)
	return rest, max(interval-rest, 0)
}

// snapshot makes a snapshot.
func (f *feed) snapshot(now time.Time) *snapshot {
	f.book.watch(f.number.Load())
	s := &snapshot{at: now, logged: f.log.latest(), totals: f.measure(now)}
	s.rows = f.book.update(now, f.monitor.Connections(), f.takeClosed)
	s.whole = f.book.whole
	f.mu.Lock()
	defer f.mu.Unlock()
	s.moves, s.moved = append([]move(nil), f.moves...), f.moved
	return s
}

// takeClosed returns the connections that were closed since the last call.
func (f *feed) takeClosed() []monitor.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.closed
	f.closed = nil
	return out
}

// measure returns the counters. Rates are measured over at least minInterval.
func (f *feed) measure(now time.Time) totals {
	elapsed := now.Sub(f.last.at)
	if elapsed < minInterval {
		return f.last.totals
	}
	stats := f.monitor.Stats()
	out := totals{lost: stats.SourceDropped, eventsLost: stats.EventsLost}
	if !f.last.at.IsZero() {
		out.datagrams = float64(stats.Datagrams-f.last.stats.Datagrams) / elapsed.Seconds()
		out.quic = float64(stats.Tracked-f.last.stats.Tracked) / elapsed.Seconds()
	}
	f.last = lastStats{at: now, stats: stats, totals: out}
	return out
}
