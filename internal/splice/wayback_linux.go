package splice

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// drainTimeout is how long the ends have to acknowledge all bytes.
	drainTimeout = 5 * time.Second
	// stillTime is how long the ends must have nothing to send before packets are dropped. The
	// windows that the ends have got before DRAIN are used up by then, if the ends are near.
	stillTime = 5 * time.Millisecond
	// holdTime is how long packets are dropped before our sockets take over again: longer than
	// a packet takes to cross the program on another CPU.
	holdTime = 2 * time.Millisecond
	// clockLead is how far the clock of a new socket is ahead of what its peer has seen, in
	// units of timestamps.
	clockLead = 1000
)

// wayBack takes a pair back to userspace.
type wayBack struct {
	pair    *Pair
	began   time.Time
	holding bool
	still   time.Time     // since when both ends have acknowledged everything
	ends    [2]uint32     // the ends of the data at that time
	drained [2]progress   // when DRAIN began
	waiting int           // how many wait for done
	done    chan struct{} // closed at the end
	err     error         // why the pair goes on in the kernel; set before done is closed
}

// Return takes the connections back to userspace, and returns sockets with which the caller goes on
// copying. The sockets have the same addresses and options as those that were given to Take. The
// caller closes them. Further calls return the same sockets.
//
// Return waits up to 5 s until the ends have acknowledged all bytes. After an error the kernel goes
// on relaying: the error wraps ErrEnding if an end has finished, ErrTimeout, or the error of ctx if
// ctx ends first. After ErrEnded the pair has ended, and ErrClosed says that the program was closed.
func (p *Pair) Return(ctx context.Context) (client, upstream *net.TCPConn, err error) {
	var w *wayBack
	if p.keeper.do(func() { w = p.keeper.comeBack(p) }) {
		err = p.keeper.wait(ctx, w)
	} else if p.End() != CameBack {
		err = ErrClosed
	}
	if err != nil {
		return nil, nil, err
	}
	return p.back[fromClient], p.back[fromUpstream], nil
}

// wait waits for a way back. If ctx ends first, and nobody else waits, it ends the way back.
func (k *keeper) wait(ctx context.Context, w *wayBack) error {
	select {
	case <-w.done:
		return w.err
	case <-k.done:
		return w.result()
	case <-ctx.Done():
	}
	others := 0
	k.do(func() {
		w.waiting--
		others = w.waiting
	})
	if others > 0 {
		return ctx.Err()
	}
	select {
	case <-w.done:
	case <-k.done:
	}
	if err := w.result(); !errors.Is(err, context.Canceled) {
		return err
	}
	return ctx.Err()
}

// result returns the error of a way back after its end or the keeper's. Both may have ended, and then
// the way back was first.
func (w *wayBack) result() error {
	select {
	case <-w.done:
		return w.err
	default:
		return ErrClosed
	}
}

// comeBack begins a way back, or joins the one that is in progress.
func (k *keeper) comeBack(p *Pair) *wayBack {
	switch {
	case p.over && p.end == CameBack:
		return arrived(nil)
	case p.over:
		return arrived(ErrEnded)
	case p.entry.seen()&seenFIN != 0:
		return arrived(ErrEnding) // without DRAIN, which would slow the other end down
	case p.way == nil:
		p.way = &wayBack{pair: p, began: time.Now(), done: make(chan struct{})}
		w := p.way
		if p.taken {
			w.drain()
		}
		k.begin(func(now time.Time) time.Duration { return k.goBack(w, now) })
	}
	p.way.waiting++
	return p.way
}

// arrived returns a way back that has ended.
func arrived(err error) *wayBack {
	w := &wayBack{done: make(chan struct{}), err: err}
	close(w.done)
	return w
}

// goBack waits in DRAIN until the ends have acknowledged all bytes, then in HOLD until no packet is
// in the program, and makes the sockets.
func (k *keeper) goBack(w *wayBack, now time.Time) time.Duration {
	p := w.pair
	k.tellTooBig(p, now)
	switch {
	case p.over:
		return k.arrive(w, ErrEnded)
	case p.entry.seen()&seenFIN != 0:
		return k.arrive(w, ErrEnding)
	case w.waiting <= 0:
		return k.arrive(w, context.Canceled)
	case now.Sub(w.began) > drainTimeout:
		return k.arrive(w, ErrTimeout)
	case !p.taken: // a takeover is in progress
		return pause(now.Sub(w.began))
	case !w.isStill(now):
		if state := p.entry.state(); state == hold {
			w.holding = false
			p.entry.setState(drain)
		} else if state != drain {
			w.drain()
		}
		return pause(now.Sub(w.began))
	case !w.holding:
		w.holding = true
		p.entry.setState(hold)
		return holdTime
	}
	return k.arrive(w, k.swap(w))
}

// drain begins DRAIN.
func (w *wayBack) drain() {
	entry := w.pair.entry
	for i := range w.drained {
		w.drained[i] = entry.Halves[i].progress()
	}
	entry.setState(drain)
}

// isStill says whether the ends have acknowledged everything, and have sent nothing for stillTime.
func (w *wayBack) isStill(now time.Time) bool {
	entry := w.pair.entry
	ends := [2]uint32{entry.Halves[fromClient].maxEnd(), entry.Halves[fromUpstream].maxEnd()}
	if !entry.settled() {
		w.still = time.Time{}
		return false
	}
	if w.still.IsZero() || ends != w.ends {
		w.still, w.ends = now, ends
	}
	return now.Sub(w.still) >= stillTime
}

// arrive ends a way back. After an error the program goes on forwarding.
func (k *keeper) arrive(w *wayBack, err error) time.Duration {
	p := w.pair
	if err != nil && !p.over {
		k.count(BackFailed)
		if p.taken {
			p.entry.setState(active)
		}
	}
	p.way, w.err = nil, err
	close(w.done)
	return 0
}

// swap replaces the frozen sockets of a pair by sockets that go on where the ends are. After an
// error the frozen sockets are still there, or some that hold the addresses as well.
func (k *keeper) swap(w *wayBack) error {
	p := w.pair
	legs := [2]*leg{p.leg(fromClient), p.leg(fromUpstream)}
	for i, l := range legs {
		if c := p.conns[i]; c != nil {
			_ = control(c, func(fd int) error { // an error says that the owner has closed it
				own, err := clock(fd)
				if err == nil {
					l.timestamp = latest(l.timestamp, own)
				}
				return err
			})
		}
		l.timestamp += clockLead
		// New data or a new acknowledgement from the other end has told this one of a window that
		// is shut. From other packets an end does not take a smaller window.
		l.shut = p.entry.Halves[1-i].progress() != w.drained[1-i]
	}
	fds, err := p.reserveBoth()
	if err != nil {
		return err
	}
	p.drop()
	var errs []error
	for i, l := range legs {
		var err error
		p.conns[i], err = k.open(l, fds[i], peekPast{
			Advmss: uint32(p.notes[i].Advmss), TsRecent: atomic.LoadUint32(&p.entry.Halves[i].LastTs), Received: l.spare(),
		})
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	p.back, p.conns = p.conns, [2]*net.TCPConn{}
	k.remove(p)
	for i, c := range p.back {
		if err := legs[i].resume(c); err != nil {
			k.log.Error("a connection that has come back cannot go on", "end", p.ends[i].remote, "err", err)
		}
	}
	k.finish(p, CameBack)
	return nil
}

// open makes the connection of a leg from a reserved socket. It is frozen.
func (k *keeper) open(l *leg, fd int, past peekPast) (*net.TCPConn, error) {
	if err := l.restore(fd); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	if err := k.peeker.markRestored(fd, past); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return connOf(fd)
}
