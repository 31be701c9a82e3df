package datapath

import (
	"context"
	"errors"
	"time"

	"github.com/quicway/quicway/internal/netmon"
)

// attachRetry is how long after a failure a follower tries again, if nothing changes.
const attachRetry = 2 * time.Second

// follower attaches the program again to an interface that is deleted and made anew,
// with the same name: the kernel takes the program off with the interface.
type follower struct {
	program *Program
	name    string
	mode    Mode // that was asked for
	links   *netmon.Links
	cancel  context.CancelFunc
	done    chan struct{}
	failure string // that was logged last

	attached *attachment // guarded by the program's mu; nil: the interface is gone
}

// followLocked begins to follow an interface, in the network namespace of the calling
// thread. Without netlink nobody follows.
func (p *Program) followLocked(a *attachment, mode Mode) {
	links, err := netmon.WatchLinks()
	if err != nil {
		p.log.Warn("the program is not attached again if the interface is made anew", "interface", a.name, "err", err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{program: p, name: a.name, mode: mode, links: links, cancel: cancel, done: make(chan struct{}), attached: a}
	a.follower = f
	p.followers[f] = struct{}{}
	go f.run(ctx)
}

// waitingLocked returns the follower that waits for an interface with the name, or nil.
func (p *Program) waitingLocked(name string) *follower {
	for f := range p.followers {
		if f.name == name && f.attached == nil {
			return f
		}
	}
	return nil
}

// unfollowLocked makes a follower, which may be nil, do nothing any more. The caller
// stops it.
func (p *Program) unfollowLocked(f *follower) *follower {
	if f == nil {
		return nil
	}
	delete(p.followers, f)
	f.cancel()
	if f.attached != nil {
		f.attached.follower = nil
	}
	return f
}

// stop returns when the follower has ended. The caller does not hold the program's
// lock, which the follower may wait for.
func (f *follower) stop() {
	if f == nil {
		return
	}
	f.cancel()
	<-f.done
	if err := f.links.Close(); err != nil {
		f.program.log.Warn("close netlink", "interface", f.name, "err", err)
	}
}

func (f *follower) run(ctx context.Context) {
	defer close(f.done)
	for ctx.Err() == nil {
		f.report(f.check(ctx))
		f.wait(ctx)
	}
}

func (f *follower) wait(ctx context.Context) {
	if f.failure != "" { // there may be no event that says when it works
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, attachRetry)
		defer cancel()
	}
	f.links.Wait(ctx)
}

// look finds out whether the interface has gone, or come again. It has the lock only
// if there is something to do.
func (f *follower) check(ctx context.Context) error {
	f.program.mu.Lock()
	on := f.attached
	f.program.mu.Unlock()
	if on != nil && !on.gone() {
		return nil
	}
	exists, err := f.links.Named(f.name)
	if err != nil || on == nil && !exists {
		return err
	}
	f.program.mu.Lock()
	defer f.program.mu.Unlock()
	if ctx.Err() != nil || f.program.closed {
		return nil
	}
	return errors.Join(f.forgetGoneLocked(), f.attachLocked(exists))
}

// forgetGoneLocked forgets the interface, if it has gone.
func (f *follower) forgetGoneLocked() error {
	if f.attached == nil || !f.attached.gone() {
		return nil
	}
	f.program.log.Warn("the interface is gone; the program is attached again when there is one with its name", "interface", f.name)
	return f.program.detachLocked(f.attached)
}

// attachLocked attaches to the interface that has the name now, if the program is on
// none.
func (f *follower) attachLocked(exists bool) error {
	if f.attached != nil || !exists {
		return nil
	}
	return f.links.Inside(func() error {
		a, err := f.program.attachLocked(f.name, f.mode)
		if err != nil {
			return err
		}
		a.byFollower, a.follower, f.attached = true, f, a
		f.program.log.Info("attached again", "interface", f.name, "mode", a.mode)
		return nil
	})
}

// report logs why the program is not attached again, if that is new.
func (f *follower) report(err error) {
	failure := ""
	if err != nil {
		failure = err.Error()
	}
	if err != nil && failure != f.failure {
		f.program.log.Error("the program is not attached again", "interface", f.name, "err", err)
	}
	f.failure = failure
}
