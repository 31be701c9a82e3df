package datapath

import (
	"context"
	"errors"
	"time"

	"github.com/quicway/quicway/internal/netmon"
)

// attachRetry is how long a follower waits after a failure before it tries again.
const attachRetry = 2 * time.Second

// follower attaches the program again when an interface is deleted and another one is created
// with the same name. The kernel detaches the program when the interface is deleted.
type follower struct {
	program *Program
	name    string
	mode    Mode // as given to Attach
	links   *netmon.Links
	cancel  context.CancelFunc
	done    chan struct{}
	failure string // the last one; only run uses it

	attached *attachment // guarded by the program's mu; nil: the interface was deleted
}

// followLocked starts a follower for an interface in the network namespace of the calling
// thread. If netlink fails, it logs that and starts none.
func (p *Program) followLocked(a *attachment, mode Mode) {
	links, err := netmon.WatchLinks()
	if err != nil {
		p.log.Warn("the program will not be attached again if the interface is recreated", "interface", a.name, "err", err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{program: p, name: a.name, mode: mode, links: links, cancel: cancel, done: make(chan struct{}), attached: a}
	a.follower = f
	p.followers[f] = struct{}{}
	go f.run(ctx)
}

// waitingLocked returns the follower that waits for an interface with the name to be created,
// or nil.
func (p *Program) waitingLocked(name string) *follower {
	for f := range p.followers {
		if f.name == name && f.attached == nil {
			return f
		}
	}
	return nil
}

// unfollowLocked cancels a follower, and returns it. The follower may be nil. The caller stops
// it after it has released the mutex.
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

// stop stops the follower and waits until it has ended. The caller must not hold the program's
// mutex, because the follower may wait for it.
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

// run checks the interface after each change until ctx is done.
func (f *follower) run(ctx context.Context) {
	defer close(f.done)
	for ctx.Err() == nil {
		f.report(f.check(ctx))
		f.wait(ctx)
	}
}

// wait waits for a change of interfaces, and after a failure at most attachRetry.
func (f *follower) wait(ctx context.Context) {
	if f.failure != "" { // the cause may vanish without a netlink event
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, attachRetry)
		defer cancel()
	}
	f.links.Wait(ctx)
}

// check checks whether the interface was deleted or created again, and attaches the program.
// It does not hold the program's mutex while it asks the kernel, so that it rarely blocks
// others.
func (f *follower) check(ctx context.Context) error {
	f.program.mu.Lock()
	a := f.attached
	f.program.mu.Unlock()
	if a != nil && !a.gone() {
		return nil
	}
	exists, err := f.links.Named(f.name)
	if err != nil || a == nil && !exists {
		return err
	}
	f.program.mu.Lock()
	defer f.program.mu.Unlock()
	if ctx.Err() != nil || f.program.closed {
		return nil
	}
	return errors.Join(f.forgetGoneLocked(), f.attachLocked(exists))
}

// forgetGoneLocked removes the attachment if the interface was deleted.
func (f *follower) forgetGoneLocked() error {
	if f.attached == nil || !f.attached.gone() {
		return nil
	}
	f.program.log.Warn("the interface was deleted; the program will be attached to the next one with its name", "interface", f.name)
	return f.program.detachLocked(f.attached)
}

// attachLocked attaches the program to the interface that now has the name, unless it is
// attached already or there is no such interface.
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

// report logs why the program could not be attached again, unless it has just logged that.
func (f *follower) report(err error) {
	failure := ""
	if err != nil {
		failure = err.Error()
	}
	if err != nil && failure != f.failure {
		f.program.log.Error("the program could not be attached again", "interface", f.name, "err", err)
	}
	f.failure = failure
}
