package sni

import (
	"testing"
	"testing/synctest"
)

// TestWorkers checks that a goroutine is used again, that a bounded number of them stays,
// and that all end.
func TestWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkers()
		for range 3 {
			w.Go(func() {})
			synctest.Wait()
			if n := len(w.idle); n != 1 {
				t.Errorf("%d goroutines are idle, want the same one", n)
			}
		}
		blocked := make(chan struct{})
		for range 2 * maxIdle {
			w.Go(func() { <-blocked })
		}
		synctest.Wait()
		close(blocked)
		synctest.Wait()
		if n := len(w.idle); n != maxIdle {
			t.Errorf("%d goroutines are idle, want %d", n, maxIdle)
		}
		w.Wait()
		w.Go(func() {})
		w.Wait()
	})
}
