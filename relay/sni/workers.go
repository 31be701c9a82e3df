package sni

import "sync"

// maxIdle is the number of goroutines that stay when they have nothing to do.
const maxIdle = 256

// workers is a sync.WaitGroup whose goroutines are used again. Their stacks have grown for
// the connections before: most of what a new goroutine costs is to copy its stack, twice.
type workers struct {
	group sync.WaitGroup
	next  chan func()   // to one that is idle
	idle  chan struct{} // has an element for each that is idle

	ending sync.Once
	ended  chan struct{} // closed: none stays idle
}

func newWorkers() *workers {
	return &workers{next: make(chan func()), idle: make(chan struct{}, maxIdle), ended: make(chan struct{})}
}

// Go calls a function on a goroutine.
func (w *workers) Go(f func()) {
	select {
	case w.next <- f:
	default:
		w.group.Go(func() { w.work(f) })
	}
}

// work calls a function, and those that follow while the goroutine may stay.
func (w *workers) work(f func()) {
	for {
		f()
		select {
		case w.idle <- struct{}{}:
		default:
			return
		}
		select {
		case f = <-w.next:
			<-w.idle
		case <-w.ended:
			return
		}
	}
}

// Wait waits until all functions have returned, and their goroutines have ended. From now on
// none is used again.
func (w *workers) Wait() {
	w.ending.Do(func() { close(w.ended) })
	w.group.Wait()
}
