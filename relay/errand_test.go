package relay

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// TestErrand checks that work is done whenever it is wanted, by one goroutine at a time, and
// not after the owner has ended.
func TestErrand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var owner errands
		var at, done atomic.Int32
		step := make(chan struct{})
		e := &errand{of: &owner, do: func() {
			if at.Add(1) != 1 {
				t.Error("two goroutines at once")
			}
			<-step
			at.Add(-1)
			done.Add(1)
		}}
		for range 10 {
			e.want()
		}
		synctest.Wait()
		e.want() // while the work is being done
		step <- struct{}{}
		step <- struct{}{}
		synctest.Wait()
		if done.Load() != 2 || e.running {
			t.Errorf("done %d times, want 2", done.Load())
		}
		e.want()
		synctest.Wait()
		go func() { step <- struct{}{} }()
		owner.close()
		if done.Load() != 3 {
			t.Error("close has not waited")
		}
		e.want()
		synctest.Wait()
		if at.Load() != 0 || e.running {
			t.Error("work goes on after the end")
		}
	})
}
