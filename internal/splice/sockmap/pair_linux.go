package sockmap

import (
	"errors"
	"fmt"
	"net"
	"sync"
)

// Pair is two sockets between which the kernel relays. All methods may be called
// concurrently.
type Pair struct {
	program *Program
	number  int32
	done    chan struct{}

	mu    sync.Mutex // guards the following
	sides [2]side    // the client's, and the upstream's
	end   End
	final [2]Half // when it has ended
}

// Take lets the kernel relay between two sockets, which then belong to the pair: the pair
// closes them when it ends. Nobody may read or write them while Take runs and after it, and
// the caller must have passed on all that it has read. They must have no deadlines.
//
// After ErrFull, ErrNotQuiet and ErrNotEstablished the caller goes on with the sockets. After
// ErrClosed and other errors they may be closed.
func (p *Program) Take(client, upstream *net.TCPConn) (*Pair, error) {
	pair, err := p.newPair(client, upstream)
	if err == nil {
		err = errors.Join(pair.sides[0].drain(upstream), pair.sides[1].drain(client))
	}
	if err == nil {
		err = pair.begin()
	}
	if err != nil {
		return nil, fmt.Errorf("sockmap: take: %w", err)
	}
	return pair, nil
}

func (p *Program) newPair(client, upstream *net.TCPConn) (*Pair, error) {
	pair := &Pair{program: p, done: make(chan struct{})}
	for i, conn := range []*net.TCPConn{client, upstream} {
		var err error
		if pair.sides[i], err = newSide(conn); err != nil {
			return nil, err
		}
		if st, err := pair.sides[i].state(); err != nil || !st.open {
			return nil, errors.Join(ErrNotEstablished, err)
		}
	}
	return pair, nil
}

// begin lets the kernel take over.
func (p *Pair) begin() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.sides {
		if err := p.sides[i].mark(); err != nil {
			return err
		}
	}
	return p.takeLocked()
}

// takeLocked lets the kernel take over from the marked sockets. An end that finishes meanwhile makes
// the kernel refuse its socket. Then the caller goes on, unless bytes were relayed already.
func (p *Pair) takeLocked() error {
	if err := p.program.add(p); err != nil {
		return err
	}
	err := p.program.insert(&p.sides)
	if err != nil && p.program.withdraw(&p.sides) {
		p.program.remove(p)
		return fmt.Errorf("%w: %w", ErrNotEstablished, err)
	}
	if err = errors.Join(err, p.program.observe(p)); err != nil {
		p.finishLocked(Reset)
		return fmt.Errorf("the connections were reset: %w", err)
	}
	return nil
}

// step passes on the ends of directions. It reports whether it has to be called again even
// if nothing more happens: bytes of a direction that has ended wait in the kernel.
func (p *Pair) step() (again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.end != Running {
		return false
	}
	var states [2]state
	for i := range p.sides {
		var err error
		if states[i], err = p.sides[i].state(); err != nil || states[i].reset {
			p.finishLocked(Reset)
			return false
		}
	}
	for i := range p.sides {
		from, to := &p.sides[i], &p.sides[1-i]
		if from.finished || !states[i].finished {
			continue
		}
		if states[1-i].sent-to.sent != from.half(states[i]).Bytes {
			again = true
			continue
		}
		if err := to.conn.CloseWrite(); err != nil {
			p.finishLocked(Reset)
			return false
		}
		from.finished = true
	}
	if p.sides[0].finished && p.sides[1].finished {
		p.finishLocked(Finished)
	}
	return again
}

// finishLocked ends the pair.
func (p *Pair) finishLocked(end End) {
	for i := range p.sides {
		if st, err := p.sides[i].state(); err == nil {
			p.final[i] = p.sides[i].half(st)
		}
	}
	p.end = end
	for i := range p.sides {
		conn := p.sides[i].conn
		if end == Reset {
			_ = conn.SetLinger(0) // it may be closed already
		}
		_ = conn.Close()
	}
	p.program.remove(p)
	close(p.done)
}

// Done returns a channel that is closed when the pair has ended, and its sockets are closed.
func (p *Pair) Done() <-chan struct{} { return p.done }

// End returns how the pair has ended, or Running.
func (p *Pair) End() End {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end
}

// Traffic returns what has come from both ends since the takeover. It makes a few system calls
// while the pair is running.
func (p *Pair) Traffic() (client, upstream Half) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.end != Running {
		return p.final[0], p.final[1]
	}
	halves := [2]Half{}
	for i := range p.sides {
		if st, err := p.sides[i].state(); err == nil { // or the pair will end
			halves[i] = p.sides[i].half(st)
		}
	}
	return halves[0], halves[1]
}

// Abort resets both connections, unless the pair has ended.
func (p *Pair) Abort() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.end == Running {
		p.finishLocked(Reset)
	}
}
