package p2p

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/udp"
)

// maxAnswer bounds the datagrams of an answer that are kept. A relay holds as many.
const maxAnswer = 8

// answerFlight is what an accepter sends while the registration of its leg is under way: the
// first flight of its handshake. A relay holds such packets until it has registered the
// leg. Those that it has not held are sent again then. The zero value keeps nothing.
type answerFlight struct {
	keeping atomic.Bool

	mu        sync.Mutex // guards the following
	datagrams [][]byte
}

// keep keeps a copy of what is sent, if the registration is under way.
func (a *answerFlight) keep(m *udp.Message) {
	if !a.keeping.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for b := range m.Segments() {
		if len(a.datagrams) < maxAnswer {
			a.datagrams = append(a.datagrams, bytes.Clone(b))
		}
	}
}

// end ends the keeping, and returns what was kept.
func (a *answerFlight) end() [][]byte {
	a.keeping.Store(false)
	a.mu.Lock()
	defer a.mu.Unlock()
	kept := a.datagrams
	a.datagrams = nil
	return kept
}

// joining is the registration of an accepter's leg. The handshake does not wait for it.
type joining struct {
	done chan struct{} // closed when err is set
	err  error
}

// startJoin begins to register the leg of an accepter's link. It calls abort with the
// reason if that fails. patience is how long it waits for the session.
func (e *Endpoint) startJoin(ctx context.Context, l *link, patience time.Duration, abort context.CancelCauseFunc) *joining {
	j := &joining{done: make(chan struct{})}
	l.answer.keeping.Store(true)
	e.tasks.Go(func() {
		defer close(j.done)
		if j.err = l.join(ctx, patience); j.err != nil {
			abort(j.err)
		}
	})
	return j
}

// wait waits until the relay has answered.
func (j *joining) wait(ctx context.Context) error {
	select {
	case <-j.done:
		return j.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// blame returns the error of a handshake. If nothing has come from the peer, but the
// relay has not registered the leg either, the offer may be tried again.
func (j *joining) blame(err error) error {
	select {
	case <-j.done:
	default:
		if errors.Is(err, ErrOfferExpired) {
			return fmt.Errorf("%w: it has not registered the leg: %w", ErrRelayUnreachable, err)
		}
	}
	return err
}

// join registers this side's leg of an offer's session, and makes sure that the answer
// is on its way to the dialer.
func (l *link) join(ctx context.Context, patience time.Duration) error {
	until, pause := time.Now().Add(patience), minBackoff
	for {
		reply, err := l.leg().client.legs.register(ctx, l.leg())
		switch {
		case err == nil:
			l.admitted.Store(true)
			l.repeatAnswer(reply.Held)
			return nil
		case refusedAs(err, control.CodeUnauthorized):
			return fmt.Errorf("%w: %w", ErrOfferExpired, err)
		case refusedAs(err, control.CodeConflict), refusedAs(err, control.CodeForbidden):
			return fmt.Errorf("%w: %w", ErrOfferUsed, err)
		case !refusedAs(err, control.CodeNotFound):
			return err
		case !time.Now().Before(until):
			return fmt.Errorf("%w: it has left the relay", ErrPeerGone)
		}
		sleep(ctx, pause)
		pause *= 2
	}
}

// repeatAnswer sends the answer again, unless the relay has held what has come of it.
func (l *link) repeatAnswer(held bool) {
	kept := l.answer.end()
	if held {
		return
	}
	for _, b := range kept {
		_ = l.mux.write(&udp.Message{Data: b, Remote: l.remote()})
	}
}
