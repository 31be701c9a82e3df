package xdp

import (
	"context"
	"errors"

	"github.com/quicway/quicway/internal/netmon"
)

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
}

// followLocked begins to follow an interface, in the network namespace of the calling
// thread. It returns the follower that had the name before, which the caller stops
// without the lock. Without netlink nobody follows.
func (p *Program) followLocked(name string, mode Mode) (before *follower) {
	before = p.unfollowLocked(name)
	links, err := netmon.WatchLinks()
	if err != nil {
		p.log.Warn("the program is not attached again if the interface is made anew", "interface", name, "err", err)
		return before
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{program: p, name: name, mode: mode, links: links, cancel: cancel, done: make(chan struct{})}
	p.followers[name] = f
	go f.run(ctx)
	return before
}

// unfollowLocked forgets the follower of a name. It does nothing any more; the caller
// stops it.
func (p *Program) unfollowLocked(name string) *follower {
	f := p.followers[name]
	delete(p.followers, name)
	if f != nil {
		f.cancel()
	}
	return f
}

// stop returns when the follower has ended. The caller does not hold the program's
// lock, which the follower may wait for.
func (f *follower) stop() error {
	if f == nil {
		return nil
	}
	f.cancel()
	<-f.done
	return f.links.Close()
}

func (f *follower) run(ctx context.Context) {
	defer close(f.done)
	for ctx.Err() == nil {
		f.links.Wait(ctx)
		f.look(ctx)
	}
}

// look finds out whether the interface has gone, or come again.
func (f *follower) look(ctx context.Context) {
	p := f.program
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() != nil || p.closed {
		return
	}
	err := f.leave()
	if err == nil {
		err = f.attachAgain()
	}
	f.report(err)
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

// attached is what is attached to the interface that had the name, or nil.
func (f *follower) attached() *attachment {
	for _, a := range f.program.attached {
		if a.name == f.name {
			return a
		}
	}
	return nil
}

// leave forgets the interface, if it has gone.
func (f *follower) leave() error {
	a := f.attached()
	if a == nil {
		return nil
	}
	exists, err := f.links.Has(a.index)
	if exists || err != nil {
		return err
	}
	f.program.log.Warn("the interface is gone; the program is attached again when there is one with its name", "interface", f.name)
	return f.program.detachLocked(a)
}

// attachAgain attaches to the interface that has the name now, if the program is on
// none.
func (f *follower) attachAgain() error {
	if f.attached() != nil {
		return nil
	}
	exists, err := f.links.Named(f.name)
	if !exists || err != nil {
		return err
	}
	return f.links.Inside(func() error {
		a, err := f.program.attachLocked(f.name, f.mode)
		if err == nil {
			a.again = true
			f.program.log.Info("attached again", "interface", f.name, "mode", a.mode)
		}
		return err
	})
}

// stopAll stops followers, and joins their errors.
func stopAll(followers map[string]*follower) error {
	var errs []error
	for _, f := range followers {
		errs = append(errs, f.stop())
	}
	return errors.Join(errs...)
}
