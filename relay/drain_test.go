package relay

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// await returns the next event of a type. It skips others.
func (l *lab) await(events <-chan control.Event, want control.EventType) control.Event {
	l.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				l.Fatalf("the events have ended without %q", want)
			}
			if e.Type == want {
				return e
			}
		case <-timeout:
			l.Fatalf("no event %q", want)
		}
	}
}

// TestDrainTellsAll checks that all clients learn where to go: those with and without a leg,
// and those that come later.
func TestDrainTellsAll(t *testing.T) {
	runLab(t, &Config{Members: []Member{{Name: "b", Addr: otherAddr}}}, func(l *lab) {
		alice, bob := l.pair()
		waiting, late := l.peer(), l.peer()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		early := []*peer{alice, bob, waiting}
		var events []<-chan control.Event
		for _, p := range early {
			events = append(events, p.listen())
		}
		go func() { done <- l.server.Drain(ctx) }()
		synctest.Wait()
		for _, e := range append(events, late.listen()) {
			if got := l.await(e, control.EventShutdown).Relays; len(got) != 1 || got[0].Addr != otherAddr {
				l.Errorf("told to go to %+v", got)
			}
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			l.Errorf("Drain: %v, want %v", err, context.Canceled)
		}
	})
}

// TestDrainWaits checks for how long Drain waits for the peers of a session, and that the
// server goes on to forward meanwhile.
func TestDrainWaits(t *testing.T) {
	for name, test := range map[string]struct {
		leave   func(alice, bob *peer)
		packets bool
		least   time.Duration
		most    time.Duration
	}{
		"both end":            {func(a, b *peer) { a.end(a.key); b.end(b.key) }, false, 0, drainLinger + sweepPeriod},
		"both disconnect":     {func(a, b *peer) { a.quic.CloseWithError(0, ""); b.quic.CloseWithError(0, "") }, false, 0, drainLinger + sweepPeriod},
		"both are silent":     {func(a, b *peer) {}, false, drainNotice, drainNotice + sweepPeriod},
		"one ends":            {func(a, b *peer) { a.end(a.key) }, false, drainNotice, drainNotice + sweepPeriod},
		"refreshed before":    {func(a, b *peer) { a.refresh() }, false, drainQuiet - sweepPeriod, drainQuiet + sweepPeriod},
		"one sends":           {func(a, b *peer) {}, true, time.Minute + drainQuiet - sweepPeriod, time.Minute + drainQuiet + sweepPeriod},
		"one refreshes":       {func(a, b *peer) { time.Sleep(drainNotice / 2); b.refresh() }, false, drainQuiet + drainNotice/2 - sweepPeriod, drainQuiet + drainNotice/2 + sweepPeriod},
		"disconnects, sends":  {func(a, b *peer) { a.quic.CloseWithError(0, ""); b.quic.CloseWithError(0, "") }, true, time.Minute, time.Minute + drainLinger + sweepPeriod},
		"none has registered": {nil, false, 0, sweepPeriod},
	} {
		t.Run(name, func(t *testing.T) {
			runLab(t, nil, func(l *lab) {
				var alice, bob *peer
				if test.leave != nil {
					alice, bob = l.pair()
					time.Sleep(drainQuiet)
				}
				begin, done := time.Now(), make(chan time.Duration, 1)
				go func() {
					if err := l.server.Drain(context.Background()); err != nil {
						l.Errorf("Drain: %v", err)
					}
					done <- time.Since(begin)
				}()
				synctest.Wait()
				if test.leave != nil {
					test.leave(alice, bob)
				}
				for test.packets && time.Since(begin) < time.Minute {
					alice.send(bob.packet(0, "x"))
					bob.want(bob.packet(0, "x"))
					time.Sleep(time.Second)
				}
				if took := <-done; took < test.least || took > test.most {
					l.Errorf("Drain took %v, want %v to %v", took, test.least, test.most)
				}
			})
		})
	}
}

// TestDrainOfClosedServer checks that Drain ends with the server.
func TestDrainOfClosedServer(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		l.pair()
		done := make(chan error, 1)
		go func() { done <- l.server.Drain(context.Background()) }()
		synctest.Wait()
		if err := l.server.Close(); err != nil {
			l.Error(err)
		}
		if err := <-done; !errors.Is(err, ErrClosed) {
			l.Errorf("Drain: %v, want %v", err, ErrClosed)
		}
	})
}

// TestDrainSeesOffloadedPackets checks that packets that only the offload has seen show that
// a session is in use.
func TestDrainSeesOffloadedPackets(t *testing.T) {
	runOffload(t, nil, func(l *lab, o *fakeOffload) {
		l.pair()
		begin, done := time.Now(), make(chan time.Duration, 1)
		go func() {
			if err := l.server.Drain(context.Background()); err != nil {
				l.Errorf("Drain: %v", err)
			}
			done <- time.Since(begin)
		}()
		for time.Since(begin) < time.Minute {
			o.packets.Add(5)
			time.Sleep(sweepPeriod)
		}
		if took := <-done; took < time.Minute || took > time.Minute+drainQuiet+2*sweepPeriod {
			l.Errorf("Drain took %v", took)
		}
	})
}

// TestSubscribersEnd checks that the server forgets a client whose request for events has
// ended, and that the event about the drain is not lost when a client has not read others.
func TestSubscribersEnd(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.peer(), l.peer()
		for _, p := range []*peer{alice, bob} {
			l.next(p.listen(), control.EventObserved)
		}
		bob.quic.CloseWithError(0, "")
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(l.server.subscribers.all); n != 1 {
			l.Errorf("%d subscribers, want 1", n)
		}
		slow := newClient(&lobbies{}, nil, nil)
		for range 2 * eventQueue {
			slow.events.add(control.Event{Type: control.EventGone})
		}
		for range 2 {
			slow.events.addLast(control.Event{Type: control.EventShutdown})
		}
		if n := len(slow.events.queue); n != eventQueue+1 || slow.events.queue[n-1].Type != control.EventShutdown {
			l.Errorf("%d events are queued, want %d, the last of which is that of the drain", n, eventQueue+1)
		}
	})
}
