package relay

import "sync"

// errands are goroutines that end with their owner.
type errands struct {
	mu     sync.Mutex // guards closed, and the calls of running.Go
	closed bool
	runs   sync.WaitGroup
}

// run calls f in a goroutine, unless the owner has ended.
func (e *errands) run(f func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.runs.Go(f)
	return true
}

// close waits for the goroutines, and starts no more.
func (e *errands) close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.runs.Wait()
}

// errand is work that comes up now and then. A goroutine does it, and ends when nothing is
// left: of many clients that wait, few have something to be done.
type errand struct {
	of *errands
	do func() // does all the work that there is; called by one goroutine at a time

	mu      sync.Mutex // guards the following
	running bool
	wanted  bool // there may be work that the last call of do has not seen
}

// want has the work done. It never blocks.
func (e *errand) want() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.wanted = true
	if !e.running {
		e.running = e.of.run(e.loop)
	}
}

func (e *errand) loop() {
	for e.next() {
		e.do()
	}
}

// next says whether the work has to be done once more.
func (e *errand) next() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running, e.wanted = e.wanted, false
	return e.running
}
