package splice

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// retryBack is how long a pair goes on in the kernel after a way back that has failed, when the program
// is being closed or detached.
const retryBack = 100 * time.Millisecond

// Detach detaches the programs from an interface, after the pairs that use it have come back to
// userspace: their owners learn of it by [Pair.Done]. If ctx ends first, the programs stay attached,
// but no more connections are taken. Detach returns nil if the programs were not attached.
func (p *Program) Detach(ctx context.Context, ifname string) error {
	p.mu.Lock()
	a := p.attachmentLocked(ifname)
	gone := a == nil || p.closed
	p.mu.Unlock()
	if gone {
		return nil
	}
	p.keeper.do(func() { p.keeper.leave(uint32(a.index)) })
	if err := p.giveBack(ctx, uint32(a.index)); err != nil {
		return fmt.Errorf("splice: detach from %s: %w", ifname, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.attached[a.index] != a {
		return nil
	}
	if err := p.detachLocked(a); err != nil {
		return fmt.Errorf("splice: detach from %s: %w", ifname, err)
	}
	p.log.Info("detached", "interface", ifname)
	return nil
}

// Close takes all pairs back to userspace, detaches the programs from all interfaces and unloads them.
// The owners of pairs learn of it by [Pair.Done]. If ctx ends first, Close resets the pairs that are
// left, and returns the error of ctx. If the program is pinned, all stays as it is in the kernel, for
// the next process. Further calls do nothing and return nil.
func (p *Program) Close(ctx context.Context) error {
	p.mu.Lock()
	closing := p.closing
	p.closing = true
	p.mu.Unlock()
	if closing {
		return nil
	}
	p.keeper.do(func() { p.keeper.refuse() })
	var err error
	if p.pin == nil {
		err = p.closeAll(ctx)
	} else {
		err = p.leaveAll()
	}
	if err != nil {
		return fmt.Errorf("splice: close: %w", err)
	}
	return nil
}

// closeAll is Close for a program that is not pinned.
func (p *Program) closeAll(ctx context.Context) error {
	errs := []error{p.giveBack(ctx, 0)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.keeper.do(func() { p.keeper.abandon() })
	for _, a := range p.attached {
		errs = append(errs, p.detachLocked(a))
	}
	return errors.Join(append(errs, p.release())...)
}

// leaveAll is Close for a program that is pinned.
func (p *Program) leaveAll() error {
	for busy := true; busy; {
		p.keeper.do(func() { busy = p.keeper.leaveAll() })
		if busy {
			time.Sleep(settleTime / 10) // takeovers end soon
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return errors.Join(p.release(), p.letStay(), p.pin.close())
}

// giveBack takes the pairs back that use an interface, or all if it is 0. It returns the error of ctx
// if ctx ends first.
func (p *Program) giveBack(ctx context.Context, index uint32) error {
	for {
		var ways []*wayBack
		p.keeper.do(func() {
			for _, pair := range p.keeper.using(index) {
				ways = append(ways, p.keeper.comeBack(pair))
			}
		})
		if len(ways) == 0 {
			return nil
		}
		failed := false
		for _, w := range ways {
			failed = p.keeper.wait(ctx, w) != nil || failed
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !failed {
			continue
		}
		select {
		case <-time.After(retryBack):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Pairs yields the pairs that the kernel relays, with those that an earlier process has left.
func (p *Program) Pairs() iter.Seq[*Pair] {
	return func(yield func(*Pair) bool) {
		var pairs []*Pair
		p.keeper.do(func() {
			for _, pair := range p.keeper.pairs {
				if pair.taken {
					pairs = append(pairs, pair)
				}
			}
		})
		for _, pair := range pairs {
			if !yield(pair) {
				return
			}
		}
	}
}

// refuse ends takeovers that have changed nothing yet, and refuses others.
func (k *keeper) refuse() {
	k.closing = true
	for _, p := range k.pairs {
		p.leaving = true
	}
}

// abandon resets all pairs, and frees all entries.
func (k *keeper) abandon() {
	for _, p := range k.using(0) {
		k.abort(p, Reset)
	}
	for len(k.ended) > 0 {
		k.freeOldest()
	}
}

// leaveAll leaves all pairs to the kernel. It returns true as long as takeovers are in progress.
func (k *keeper) leaveAll() (busy bool) {
	for _, p := range k.using(0) {
		if !p.taken {
			busy = true
			continue
		}
		p.entry.setState(active) // a way back may be in progress
		for _, c := range p.conns {
			if c != nil {
				_ = c.Close() // the end does not hear of it, since the socket is frozen
			}
		}
		k.finish(p, Left)
		delete(k.pairs, p.slot)
	}
	return busy
}

// Pinned says whether the pairs outlive the process.
func (p *Program) Pinned() bool { return p.pin != nil }
